-- What all scripts share; it stands in front of each of them. KEYS[1] is the record of the namespace itself, and every
-- other key is made from its beginning, so that all have one hash tag and live in one slot of a cluster.
--
-- A script that fails keeps what it wrote. So whatever may fail is done before the first write of an item: `touch`
-- looks whether the keys that are shared have the type they should have. And the first write of what takes jobs out
-- of somewhere is a removal, which a server without memory allows: after it, it allows the rest.

local call = redis.call
local prefix = string.sub(KEYS[1], 1, -5)
local LAST_MOMENT = 253402300799999

local now = tonumber(ARGV[1])
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local version = redis.pcall('HGET', KEYS[1], 'version')
if type(version) == 'table' or (version and version ~= '1') then
  return redis.error_reply('LEASEHOLDVERSION ' .. (version.err and '?' or version))
end

-- Lua itself would write large numbers with an exponent.
local function text(number)
  return string.format('%.0f', number)
end

local function later(moment, span)
  return math.min(moment + span, LAST_MOMENT)
end

local function due_by(rule, millis)
  if rule == 'at' then return tonumber(millis) end
  return later(now, tonumber(millis))
end

local function job_key(id)
  return prefix .. 'job:' .. id
end

-- Counts, told events and the like are written once per call.

local counted, told, waking, changes = {}, {}, {}, 0

local function count(queue, what, by)
  local of = counted[queue] or {}
  of[what] = (of[what] or 0) + by
  counted[queue] = of
end

local function tell_waiting(queue)
  if not waking[queue] then
    waking[queue] = true
    told[#told + 1] = 'waiting\t' .. queue
  end
end

-- More than some are not told one by one.
local function tell_changed(job, state)
  changes = changes + 1
  if changes <= 64 then
    told[#told + 1] = 'changed\t' .. job.id .. '\t' .. job.queue .. '\t' .. state
  elseif changes == 65 then
    told[#told + 1] = 'changes'
  end
end

local function write_out()
  for queue, of in pairs(counted) do
    for what, by in pairs(of) do
      if by ~= 0 then call('HINCRBY', prefix .. 'counts:' .. queue, what, text(by)) end
    end
  end
  -- Who may not publish has workers that poll.
  if #told > 0 then redis.pcall('PUBLISH', prefix .. 'events', table.concat(told, '\n')) end
end

-- Runs the work of a script. What it wrote before it failed is counted all the same.
local function run(work)
  local worked, answer = pcall(work)
  write_out()
  if worked or type(answer) == 'table' then return answer end
  return redis.error_reply('ERR ' .. tostring(answer))
end

-- Keys of another type fail here, before anything was written.

local looked_at = {}

local function must_be(how, name)
  if not looked_at[name] then
    call(how, prefix .. name)
    looked_at[name] = true
  end
end

local function lane_of(job)
  local lane = job.queue .. '\n' .. text(job.priority) .. '\n' .. job.kind
  if job.tags then lane = lane .. '\n' .. job.tags end
  return lane
end

local function group_of(lane, limit, max)
  return lane .. '\n\n' .. limit .. '\n' .. max
end

local touched = {}

local function touch(job)
  local lane = lane_of(job)
  local place = job.limit and group_of(lane, job.limit, job.limit_max) or lane
  if touched[place] then return end
  touched[place] = true
  for _, name in ipairs({ 'age', 'leases', 'expiry', 'log_ages' }) do must_be('ZCARD', name) end
  for _, name in ipairs({ 'queues', 'unique', 'running', 'heads' }) do must_be('HLEN', name) end
  must_be('HLEN', 'counts:' .. job.queue)
  must_be('ZCARD', 'waiting:' .. job.queue)
  must_be('ZCARD', 'lanes:' .. job.queue)
  must_be('ZCARD', 'ready:' .. lane)
  if job.limit then
    must_be('ZCARD', 'group:' .. place)
    must_be('SCARD', 'groups:' .. job.limit .. '\n' .. job.limit_max)
  end
end

-- Records.

-- Fields that are numbers: 0 or nothing where a job has none.
local COUNTING = { 'priority', 'due', 'attempt', 'max', 'crashes', 'generation', 'at', 'failures', 'logged', 'log_bytes' }
local OPTIONAL = { 'lease', 'lease_until', 'expires', 'unique_until' }

-- What is stored of a job but for its payload; nothing if it is not there, and why if it makes no sense.
local function load(id)
  local record = redis.pcall('HGETALL', job_key(id))
  if record.err then return nil, 'it is not a hash' end
  if #record == 0 then return nil end
  local job = { id = id, record = record }
  for i = 1, #record, 2 do job[record[i]] = record[i + 1] end
  for _, field in ipairs(COUNTING) do job[field] = tonumber(job[field] or 0) or 0 end
  for _, field in ipairs(OPTIONAL) do job[field] = job[field] and tonumber(job[field]) end
  if not (job.state and job.queue and job.kind) or (job.limit and not job.limit_max) then
    return nil, 'it lacks what every job has'
  end
  return job
end

-- A record with its payload, which has a key of its own: a hash of short fields takes half the memory.
local function whole(id, record)
  local payload = redis.pcall('GET', prefix .. 'body:' .. id)
  if type(payload) == 'string' then
    record[#record + 1] = 'payload'
    record[#record + 1] = payload
  end
  return record
end

-- Sets fields, and removes those that are false.
local function save(id, fields)
  local set, unset = {}, {}
  for field, value in pairs(fields) do
    if value == false then
      unset[#unset + 1] = field
    else
      set[#set + 1] = field
      set[#set + 1] = value
    end
  end
  if #set > 0 then call('HSET', job_key(id), unpack(set)) end
  if #unset > 0 then call('HDEL', job_key(id), unpack(unset)) end
end

local function is_over(state)
  return state == 'succeeded' or state == 'failed' or state == 'cancelled'
end

local function seen_state(job)
  if job.state ~= 'waiting' then return job.state end
  return job.due > now and 'scheduled' or 'queued'
end

-- Lanes: the waiting jobs of one queue, priority, kind and set of tags, in the order in which they are given out. Of
-- the jobs that share a limit key, a limit and a lane, which are a group, only the first one stands in the lane, and
-- only as long as the key has room. So a claim never meets a job that it may not take.

local shown_lanes, changed_lanes = {}, {}

local function show(lane, due, id)
  call('ZADD', prefix .. 'ready:' .. lane, due, id)
  changed_lanes[lane] = true
  if not shown_lanes[lane] then
    local queue, priority = string.match(lane, '^([^\n]*)\n([^\n]*)')
    call('ZADD', prefix .. 'lanes:' .. queue, priority, lane)
    shown_lanes[lane] = true
  end
end

local function hide(lane, id)
  call('ZREM', prefix .. 'ready:' .. lane, id)
  changed_lanes[lane] = true
  if call('EXISTS', prefix .. 'ready:' .. lane) == 0 then
    call('ZREM', prefix .. 'lanes:' .. string.match(lane, '^[^\n]*'), lane)
    shown_lanes[lane] = nil
  end
end

local runs = {}

local function running(limit)
  if not runs[limit] then runs[limit] = tonumber(call('HGET', prefix .. 'running', limit) or 0) end
  return runs[limit]
end

-- Lets the first of a group stand in its lane if there is room for it, and no other.
local function refresh(lane, limit, max)
  local group = group_of(lane, limit, max)
  local first = call('ZRANGE', prefix .. 'group:' .. group, 0, 0, 'WITHSCORES')
  local wanted = first[1] and running(limit) < tonumber(max) and first[1] or false
  local shown = call('HGET', prefix .. 'heads', group)
  if shown == wanted then return end
  if shown then hide(lane, shown) end
  if wanted then
    show(lane, first[2], wanted)
    call('HSET', prefix .. 'heads', group, wanted)
    tell_waiting(string.match(lane, '^[^\n]*'))
  else
    call('HDEL', prefix .. 'heads', group)
  end
end

-- One more or one less runs under a limit key. Only for groups of one limit does this make or take room.
local function count_running(limit, by)
  local before = running(limit)
  runs[limit] = math.max(before + by, 0)
  if runs[limit] == 0 then
    call('HDEL', prefix .. 'running', limit)
  else
    call('HSET', prefix .. 'running', limit, runs[limit])
  end
  local max = text(math.max(before, runs[limit]))
  for _, lane in ipairs(call('SMEMBERS', prefix .. 'groups:' .. limit .. '\n' .. max)) do refresh(lane, limit, max) end
end

local function wait(job)
  local lane = lane_of(job)
  call('ZADD', prefix .. 'waiting:' .. job.queue, job.due, job.id)
  if job.limit then
    call('ZADD', prefix .. 'group:' .. group_of(lane, job.limit, job.limit_max), job.due, job.id)
    call('SADD', prefix .. 'groups:' .. job.limit .. '\n' .. job.limit_max, lane)
    refresh(lane, job.limit, job.limit_max)
  else
    show(lane, job.due, job.id)
  end
  tell_waiting(job.queue)
end

local function leave_lane(job)
  local lane = lane_of(job)
  call('ZREM', prefix .. 'waiting:' .. job.queue, job.id)
  if not job.limit then return hide(lane, job.id) end
  local group = group_of(lane, job.limit, job.limit_max)
  call('ZREM', prefix .. 'group:' .. group, job.id)
  if call('HGET', prefix .. 'heads', group) == job.id then
    hide(lane, job.id)
    call('HDEL', prefix .. 'heads', group)
  end
  if call('EXISTS', prefix .. 'group:' .. group) == 0 then
    call('SREM', prefix .. 'groups:' .. job.limit .. '\n' .. job.limit_max, lane)
  end
  refresh(lane, job.limit, job.limit_max)
end

-- Takes a job out of the place that its state has.
local function leave(job)
  if job.state == 'waiting' then
    leave_lane(job)
  elseif job.state == 'running' then
    call('ZREM', prefix .. 'leases', job.id)
    count(job.queue, 'running', -1)
    if job.limit then count_running(job.limit, -1) end
  else
    call('ZREM', prefix .. 'expiry', job.id)
    count(job.queue, job.state, -1)
  end
end

-- Unique keys.

local function holder_of(unique)
  local id = call('HGET', prefix .. 'unique', unique)
  if not id then return nil end
  local is = call('HMGET', job_key(id), 'state', 'scope', 'unique_until')
  local over = not is[1] or (is[2] == 'for' and (tonumber(is[3]) or 0) < now)
  return not over and id or nil
end

local function free_key(job)
  if job.unique and call('HGET', prefix .. 'unique', job.unique) == job.id then
    call('HDEL', prefix .. 'unique', job.unique)
  end
end

-- Makes a job end that was taken out of its place, beside these changes of its record.
local function finish(job, state, reason, fields)
  local succeeded, failed, cancelled = string.match(job.keep or '', '^(%S+) (%S+) (%S+)$')
  local keep = tonumber(({ succeeded = succeeded, failed = failed, cancelled = cancelled })[state])
  fields.state, fields.reason, fields.finished = state, reason or false, now
  fields.expires = keep and later(now, keep) or false
  fields.claim, fields.lease_until, fields.cancel = false, false, false
  save(job.id, fields)
  if keep then call('ZADD', prefix .. 'expiry', fields.expires, job.id) end
  count(job.queue, state, 1)
  if job.scope ~= 'for' then free_key(job) end
  tell_changed(job, state)
end

-- Makes a job wait that was taken out of its place.
local function put_back(job, due, reason, fields)
  fields.state, fields.reason, fields.due = 'waiting', reason, due
  fields.claim, fields.lease_until, fields.cancel = false, false, false
  job.state, job.due = 'waiting', due
  save(job.id, fields)
  wait(job)
  tell_changed(job, seen_state(job))
end

-- Removes a job that was taken out of its place.
local function forget(job)
  free_key(job)
  call('ZREM', prefix .. 'age', job.id)
  call('ZREM', prefix .. 'log_ages', job.id)
  call('DEL', job_key(job.id), prefix .. 'body:' .. job.id, prefix .. 'log:' .. job.id)
  if job.log_bytes > 0 then call('HINCRBY', KEYS[1], 'log_bytes', text(-job.log_bytes)) end
  count(job.queue, 'deleted', 1)
end

-- Takes what is no job any more out of the way, as failed. What stood in its place is kept for whoever wants to see it.
local function set_aside(id, queue)
  local kind = call('TYPE', job_key(id)).ok
  if kind ~= 'hash' and kind ~= 'none' then call('RENAME', job_key(id), prefix .. 'unreadable:' .. id) end
  save(id, { state = 'failed', reason = 'unreadable', queue = queue, kind = 'unreadable', finished = now, claim = false })
  count(queue, 'failed', 1)
end
