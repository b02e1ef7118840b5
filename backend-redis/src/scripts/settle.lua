-- ARGV: now, whether by a recoverer, how many failures a job remembers, then of each: job, claim, verdict, reason, delay,
-- whether there is a result, the result, the failure or nothing, its class.
local by_recoverer, remembered = ARGV[2] == '1', tonumber(ARGV[3])

-- The first failure stands at 0, and the latest ones go round after it.
local function remember(job, failure, class, fields)
  local place = job.failures
  if place > 0 then place = 1 + (place - 1) % (remembered - 1) end
  fields['failure' .. place] = text(job.attempt) .. '\n' .. (job.worker or '') .. '\n' .. text(now) .. '\n' .. failure
  fields.failures, fields.class = job.failures + 1, class
end

local function settle_one(at)
  local id, claim, verdict, reason, delay = unpack(ARGV, at, at + 4)
  local mark = claim .. ' ' .. verdict .. ' ' .. ARGV[2]
  local job = load(id)
  if not job then return 'lost' end
  if job.state ~= 'running' or job.claim ~= claim then
    return job.settled == mark and 'already' or 'lost'
  end
  if by_recoverer and (job.lease_until or 0) >= now then return 'lost' end
  touch(job)
  leave(job)
  local fields = { settled = mark, crashes = by_recoverer and job.crashes + 1 or nil }
  if ARGV[at + 7] ~= '' then remember(job, ARGV[at + 7], ARGV[at + 8], fields) end
  local goes_on = verdict == 'retry' or verdict == 'release'
  if verdict == 'succeed' then
    fields.result = ARGV[at + 5] == '1' and ARGV[at + 6] or false
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
    fields.attempt = job.attempt - 1
    put_back(job, delay == '0' and job.due or later(now, tonumber(delay)), reason, fields)
  end
  return 'applied'
end

return run(function()
  local answers = {}
  for at = 4, #ARGV, 9 do answers[#answers + 1] = settle_one(at) end
  return answers
end)
