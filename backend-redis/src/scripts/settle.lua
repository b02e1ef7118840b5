-- ARGV: now, whether by a recoverer, how many failures a job remembers, then of each: job, claim, verdict, reason, delay,
-- whether there is a result, the result, the failure or nothing, its class, the queue that it goes to or nothing.
local by_recoverer, remembered = ARGV[2] == '1', tonumber(ARGV[3])

-- The first failure stands at 0, and the latest ones go round after it.
local function remember(job, failure, class, set)
  local place = job.failures
  if place > 0 then place = 1 + (place - 1) % (remembered - 1) end
  local told = text(job.attempt) .. '\n' .. (job.worker or '') .. '\n' .. now_text .. '\n' .. failure
  local more = { 'failure' .. place, told, 'failures', job.failures + 1, 'class', class }
  for _, item in ipairs(more) do set[#set + 1] = item end
end

-- All that a success needs to know of a job without a limit key: half of what it costs to read the whole.
local function glance(id)
  local is = redis.pcall('HMGET', job_key(id), 'state', 'claim', 'queue', 'kind', 'limit', 'unique', 'scope', 'keep', 'settled')
  if is.err or is[5] or not (is[1] and is[3] and is[4]) then return nil end
  return {
    id = id, state = is[1], claim = is[2], queue = is[3], kind = is[4],
    unique = is[6], scope = is[7], keep = is[8] or '', settled = is[9],
  }
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
  set[#set + 1], set[#set + 2] = 'queue', queue
end

local function settle_one(at)
  local id, claim, verdict, reason, delay = unpack(ARGV, at, at + 4)
  local mark = claim .. ' ' .. verdict .. ' ' .. ARGV[2]
  local failure, class, queue = ARGV[at + 7], ARGV[at + 8], ARGV[at + 9]
  local job = verdict == 'succeed' and failure == '' and glance(id) or load(id)
  if not job then return 'lost' end
  if job.state ~= 'running' or job.claim ~= claim then
    return job.settled == mark and 'already' or 'lost'
  end
  if by_recoverer and (job.lease_until or 0) >= now then return 'lost' end
  local goes_on = verdict == 'retry' or verdict == 'release'
  touch(job)
  -- One that ends stays where it is.
  local goes_elsewhere = goes_on and queue ~= '' and queue ~= job.queue and not job.cancel and job.attempt < job.max
  if goes_elsewhere then touch_elsewhere(job, queue) end
  if goes_on then touch_lane(job) end
  leave(job)
  local fields = { 'settled', mark }
  if goes_elsewhere then go_elsewhere(job, queue, fields) end
  if by_recoverer then fields[3], fields[4] = 'crashes', job.crashes + 1 end
  if failure ~= '' then remember(job, failure, class, fields) end
  if verdict == 'succeed' then
    if ARGV[at + 5] == '1' then fields[#fields + 1], fields[#fields + 2] = 'result', ARGV[at + 6] end
    finish(job, 'succeeded', nil, fields)
  elseif verdict == 'fail' then
    finish(job, 'failed', reason, fields)
  elseif verdict == 'cancel' then
    finish(job, 'cancelled', reason, fields)
  elseif goes_on and job.cancel then
    finish(job, 'cancelled', 'cancelled', fields)
  elseif verdict == 'retry' and job.attempt >= job.max then
    finish(job, 'failed', 'max_attempts', fields)
  elseif verdict == 'retry' then
    put_back(job, later(now, tonumber(delay)), reason, fields)
  else
    fields[#fields + 1], fields[#fields + 2] = 'attempt', job.attempt - 1
    put_back(job, delay == '0' and job.due or later(now, tonumber(delay)), reason, fields)
  end
  return 'applied'
end

return run(function()
  local answers = {}
  for at = 4, #ARGV, 10 do answers[#answers + 1] = settle_one(at) end
  return answers
end)
