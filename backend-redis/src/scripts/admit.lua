-- ARGV: now, caps as in `lines`, number of jobs, then of each: id, lane, terms, state, when it was enqueued, when it is due,
-- number of what follows: names and values of fields, and behind them a payload that is too long for one; then the number of
-- its lines, and of each attempt, worker, at, level and message.

-- The job whose arguments begin here, its lines, and where the next one's do.
local function read(at)
  local count = tonumber(ARGV[at + 6])
  local fields = count - count % 2
  local job = {
    id = ARGV[at], lane = ARGV[at + 1], terms = ARGV[at + 2], state = ARGV[at + 3],
    at = tonumber(ARGV[at + 4]), due = tonumber(ARGV[at + 5]),
  }
  job.key, job.queue = job_key(job.id), parts_of(job.lane).queue
  job.first, job.last, job.body = at + 7, at + 6 + fields, count > fields and ARGV[at + 6 + count]
  for field = job.first, job.last, 2 do job[ARGV[field]] = ARGV[field + 1] end
  local lines = {}
  at = at + 7 + count
  for i = 1, tonumber(ARGV[at]) do
    local first = at + 1 + 5 * (i - 1)
    lines[i] = {
      attempt = ARGV[first], worker = ARGV[first + 1], at = ARGV[first + 2], level = ARGV[first + 3], message = ARGV[first + 4],
    }
  end
  return job, lines, at + 1 + 5 * #lines
end

-- Whether it has its unique key (P4).
local function holds_key(job)
  if not job.unique then return false end
  if job.scope == 'for' then return tonumber(job.unique_until) >= now end
  if is_over(job.state) then return false end
  return job.scope == 'finished' or not (job.run or job.generation)
end

local function create(job, lines)
  call('HSET', job.key, 'state', job.state, 'at', text(job.at), 'lane', job.lane, 'terms', job.terms, 'due', text(job.due),
    unpack(ARGV, job.first, job.last))
  if job.body then call('SET', prefix .. 'body:' .. job.id, job.body) end
  if holds_key(job) then call('HSET', prefix .. 'unique', job.unique, job.id) end
  add('age', job.at, job.id)
  call('HSETNX', prefix .. 'queues', job.queue, '')
  count(job.queue, 'enqueued', 1)
  if job.state == 'waiting' then
    wait(job)
  else
    count(job.queue, job.state, 1)
    local expiry = expiry_of(job, job.state, tonumber(job.finished), job.reason)
    if expiry then add('expiry', expiry, job.id) end
  end
  tell_changed(job, seen_state(job))
  if #lines > 0 then append(job, lines) end
end

-- Answers 1 for a job that was taken in, 0 for one that was there, and else who holds its key.
return run(function()
  local jobs, logs, at = {}, {}, 7
  for i = 1, tonumber(ARGV[6]) do
    jobs[i], logs[i], at = read(at)
    touch(jobs[i])
    if #logs[i] > 0 then touch_log(jobs[i], logs[i]) end
  end
  local answers = {}
  for i, job in ipairs(jobs) do
    local holder = holds_key(job) and holder_of(job.unique)
    if call('EXISTS', job.key) == 1 then
      answers[i] = 0
    elseif holder then
      answers[i] = holder
    else
      create(job, logs[i])
      answers[i] = 1
    end
  end
  return answers
end)
