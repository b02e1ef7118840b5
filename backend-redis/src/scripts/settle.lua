-- ARGV: now, whether by a recoverer, how many failures a job remembers, then of each: job, claim, verdict, number of what
-- follows if there is anything to tell: reason, delay, the failure or nothing, its class, the queue that it goes to or nothing,
-- the result.
local by_recoverer, remembered = ARGV[2] == '1', tonumber(ARGV[3])

-- The first failure stands at 0, and the latest ones go round after it.
local function remember(job, failure, class, set)
  local place = job.failures
  if place > 0 then place = 1 + (place - 1) % (remembered - 1) end
  local told = text(job.attempt) .. '\n' .. (job.worker or '') .. '\n' .. now_text .. '\n' .. failure
  local more = { 'failure' .. place, told, 'failures', job.failures + 1, 'class', class }
  for _, item in ipairs(more) do set[#set + 1] = item end
end

-- All that a holder's success needs to know of a job without keys: half of what it costs to read the whole.
local function glance(id, claim)
  local is = redis.pcall('HMGET', job_key(id), 'state', 'claim', 'lane', 'terms')
  if is.err or is[1] ~= 'running' or is[2] ~= claim then return nil end
  local lane, terms = is[3] and parts_of(is[3]), is[4] and read_terms[is[4]]
  if not (lane and terms and terms.is_plain) then return nil end
  return { id = id, state = 'running', claim = claim, queue = lane.queue, kind = lane.kind, lane = is[3], terms = is[4] }
end

local function touch_elsewhere(job, queue)
  local moved = { state = 'waiting', queue = queue, priority = job.priority, kind = job.kind, tags = job.tags }
  moved.limit, moved.limit_max, moved.limit_ends = job.limit, job.limit_max, job.limit_ends
  touch(moved)
end

local function go_elsewhere(job, queue, set)
  count(job.queue, 'deleted', 1)
  job.queue, job.lane = queue, nil
  count(queue, 'enqueued', 1)
  call('HSETNX', prefix .. 'queues', queue, '')
  set[#set + 1], set[#set + 2] = 'lane', lane_of(job)
end

-- Answers 1 where the settlement is applied, 2 where it had been, and 0 where the lease is lost.
local function settle_one(at, more)
  local id, claim, verdict = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local reason, delay, failure, class, queue, result = unpack(ARGV, at + 4, at + 3 + more)
  local succeeds = verdict == 'succeed' and not by_recoverer
  failure, queue = failure or '', queue or ''
  local job = succeeds and failure == '' and glance(id, claim) or load(id)
  if not job then return 0 end
  local mark = claim .. ' ' .. verdict .. ' ' .. ARGV[2]
  if job.state ~= 'running' or job.claim ~= claim then return latest_of(job) == mark and 2 or 0 end
  if by_recoverer and (job.lease_until or 0) >= now then return 0 end
  local goes_on = verdict == 'retry' or verdict == 'release'
  touch(job)
  -- One that ends stays where it is.
  local goes_elsewhere = goes_on and queue ~= '' and queue ~= job.queue and not job.cancel and job.attempt < terms_of(job).max
  if goes_elsewhere then touch_elsewhere(job, queue) end
  if goes_on then touch_lane(job) end
  leave(job)
  local fields = succeeds and {} or { 'settled', mark }
  if goes_elsewhere then go_elsewhere(job, queue, fields) end
  if by_recoverer then fields[#fields + 1], fields[#fields + 2] = 'crashes', job.crashes + 1 end
  if failure ~= '' then remember(job, failure, class, fields) end
  if verdict == 'succeed' then
    if result then fields[#fields + 1], fields[#fields + 2] = 'result', result end
    finish(job, 'succeeded', nil, fields)
  elseif verdict == 'fail' then
    finish(job, 'failed', reason, fields)
  elseif verdict == 'cancel' then
    finish(job, 'cancelled', reason, fields)
  elseif goes_on and job.cancel then
    finish(job, 'cancelled', 'cancelled', fields)
  elseif verdict == 'retry' and job.attempt >= terms_of(job).max then
    finish(job, 'failed', 'max_attempts', fields)
  elseif verdict == 'retry' then
    put_back(job, later(now, tonumber(delay)), reason, fields)
  else
    fields[#fields + 1], fields[#fields + 2] = 'attempt', job.attempt - 1
    put_back(job, delay == '0' and job.due or later(now, tonumber(delay)), reason, fields)
  end
  return 1
end

return run(function()
  local answers, at, n, last = {}, 4, 0, #ARGV
  while at <= last do
    local more = tonumber(ARGV[at + 3])
    n = n + 1
    answers[n], at = settle_one(at, more), at + 4 + more
  end
  return answers
end)
