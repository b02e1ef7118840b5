-- ARGV: now, action, what it is done with (a queue, a priority, or the rule of a due time), milliseconds of a due time,
-- whether only to tell, whether by a filter; then ids, or what `walk` reads.
local action, with, millis, preview = ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'

-- What would be done, and the change that does it.
local what = {}

function what.cancel(job)
  if job.state == 'cancelled' then return 'already' end
  if is_over(job.state) then return 'refused' end
  if job.state == 'running' then
    return 'requested', function()
      save(job, { 'cancel', 1 })
      told[#told + 1] = 'cancel\t' .. job.id .. '\t' .. job.queue
    end
  end
  return 'applied', function()
    leave(job)
    finish(job, 'cancelled', 'cancelled', {})
  end
end

-- Lets a job wait again that has ended, with its unique key if it takes that (P4).
local function bring_back(job, takes_key, due, reason, set, unset)
  local holder = takes_key and holder_of(job.unique)
  if holder then return 'held', nil, holder end
  return 'applied', function()
    leave(job)
    if takes_key then call('HSET', prefix .. 'unique', job.unique, job.id) end
    put_back(job, due, reason, set, unset)
  end
end

function what.requeue(job)
  if not is_over(job.state) then return 'refused' end
  local set = { 'generation', job.generation + 1, 'attempt', 0, 'crashes', 0 }
  local takes_key = job.unique and job.scope == 'finished'
  return bring_back(job, takes_key, due_by(with, millis), 'requeued', set, { 'result', 'progress', 'finished' })
end

-- Withdrawn is what goes on in another store (P8).
local function is_withdrawn(job) return job.state == 'cancelled' and job.reason == 'moved' end

function what.withdraw(job)
  if is_withdrawn(job) then return 'already' end
  if job.state ~= 'waiting' then return 'refused' end
  return 'applied', function()
    leave(job)
    finish(job, 'cancelled', 'moved', {})
  end
end

function what.restore(job)
  if job.state == 'waiting' then return 'already' end
  if not is_withdrawn(job) then return 'refused' end
  local was_claimed = job.run or job.generation > 0
  local takes_key = job.unique and (job.scope == 'finished' or (job.scope == 'claimed' and not was_claimed))
  return bring_back(job, takes_key, job.due, nil, {}, { 'reason', 'finished' })
end

function what.delete(job)
  if job.state == 'running' then return 'refused' end
  return 'applied', function()
    leave(job)
    forget(job)
  end
end

function what.delete_ended(job)
  if not is_over(job.state) or not job.finished or job.finished > tonumber(millis) then return 'refused' end
  return what.delete(job)
end

function what.move(job)
  if job.queue == with then return 'already' end
  if job.state == 'running' then return 'refused' end
  return 'applied', function()
    leave(job)
    count(job.queue, 'deleted', 1)
    job.queue, job.lane = with, nil
    count(job.queue, 'enqueued', 1)
    save(job, { 'lane', lane_of(job) })
    call('HSETNX', prefix .. 'queues', with, '')
    if job.state == 'waiting' then return wait(job) end
    count(job.queue, job.state, 1)
    local expiry = expiry_of(job, job.state, job.finished or now)
    if expiry then add('expiry', expiry, job.id) end
  end
end

function what.reprioritise(job)
  if job.priority == tonumber(with) then return 'already' end
  return 'applied', function()
    if job.state == 'waiting' then leave_lane(job) end
    job.priority, job.lane = tonumber(with), nil
    save(job, { 'lane', lane_of(job) })
    if job.state == 'waiting' then wait(job) end
  end
end

function what.postpone(job)
  if job.state ~= 'waiting' then return 'refused' end
  local due = due_by(with, millis)
  if due == job.due then return 'already' end
  return 'applied', function()
    leave_lane(job)
    put_back(job, due, 'postponed', {})
  end
end

-- Parked is what is due at the last moment that there is.
local function is_parked(job) return job.state == 'waiting' and job.due == LAST_MOMENT end

function what.unpark(job)
  if not is_parked(job) then return 'already' end
  return 'applied', function()
    leave_lane(job)
    put_back(job, due_by(with, millis), nil, {}, { 'reason' })
  end
end

function what.cancel_parked(job)
  if job.state == 'cancelled' then return 'already' end
  if not is_parked(job) then return 'refused' end
  return 'applied', function()
    leave(job)
    finish(job, 'cancelled', 'dependency', {})
  end
end

-- What may be done to a job that is withdrawn.
local ELSEWHERE = { withdraw = true, restore = true, delete = true, delete_ended = true }

local function amend_one(id, job)
  if not job then return { id, 'absent', false } end
  local answer, change, holder
  if is_withdrawn(job) and not ELSEWHERE[action] then answer = 'refused' else answer, change, holder = what[action](job) end
  if change and not preview then
    touch(job)
    local moved = { queue = job.queue, kind = job.kind, tags = job.tags, limit = job.limit, limit_max = job.limit_max }
    moved.limit_ends = job.limit_ends
    moved.queue = action == 'move' and with or job.queue
    moved.priority = action == 'reprioritise' and tonumber(with) or job.priority
    touch(moved)
    change()
  end
  return { id, answer, answer == 'refused' and seen_state(job) or holder or false }
end

return run(function()
  local answers, found, after = {}, {}, false
  if ARGV[6] ~= '1' then
    for i = 7, #ARGV do answers[i - 6] = amend_one(ARGV[i], (load(ARGV[i]))) end
    return answers
  end
  found, after = walk(7)
  for _, job in ipairs(found) do
    if not job.unreadable then answers[#answers + 1] = amend_one(job.id, job) end
  end
  return { answers, after }
end)
