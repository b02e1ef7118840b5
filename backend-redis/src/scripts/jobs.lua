-- What the scripts share that read or write jobs; it stands after `shared`.

-- A lane is the jobs of one queue, priority, kind and set of tags, in this order. A job has the name of its lane in place
-- of these four.

local function lane_of(job)
  local lane = job.lane
  if not lane then
    lane = job.queue .. '\n' .. text(job.priority) .. '\n' .. job.kind
    if job.tags then lane = lane .. '\n' .. job.tags end
    job.lane = lane
  end
  return lane
end

local parts = {}

-- What the name of a lane says, or nothing if it is none.
local function parts_of(lane)
  local of = parts[lane]
  if not of then
    local queue, priority, kind, tags = string.match(lane, '^([^\n]+)\n(%-?%d+)\n([^\n]+)(.*)$')
    if not queue then return nil end
    of = { queue = queue, priority = tonumber(priority), kind = kind, tags = tags ~= '' and string.sub(tags, 2) or nil }
    parts[lane] = of
  end
  return of
end

-- The set of a lane. A name that is made once costs no more when it is used again.
local ready = setmetatable({}, { __index = function(known, lane)
  known[lane] = 'ready:' .. lane
  return known[lane]
end })

local function group_of(lane, limit, max)
  return lane .. '\n\n' .. limit .. '\n' .. max
end

-- A job that ends rather than waits for room stands in its lane like one without a limit key: the claim that comes by ends it.
local function waits_for_room(job)
  return job.limit and not job.limit_ends
end

local touched = {}

-- The sets of a job that leaves its lane or comes into it, or has a limit key, and those of all jobs of its queue.
local function touch_lane(job)
  local lane = lane_of(job)
  if not job.limit and touched[lane] then return end
  local place = waits_for_room(job) and group_of(lane, job.limit, job.limit_max) or lane
  if touched[place] then return end
  touched[place] = true
  must_be('ZCARD', ready[lane])
  if waits_for_room(job) then
    must_be('ZCARD', 'group:' .. place)
    must_be('SCARD', 'groups:' .. job.limit .. '\n' .. job.limit_max)
  end
end

local runs = {}

local function running(limit)
  if not runs[limit] then runs[limit] = tonumber(call('HGET', prefix .. 'running', limit) or 0) end
  return runs[limit]
end

-- One more or one less under a limit key opens or shuts the lanes of groups of these limits.
local function touch_groups(limit)
  for max = running(limit), running(limit) + 1 do
    local groups = 'groups:' .. limit .. '\n' .. text(max)
    if not touched[groups] then
      touched[groups] = true
      for _, lane in ipairs(call('SMEMBERS', prefix .. groups)) do must_be('ZCARD', ready[lane]) end
    end
  end
end

local touched_queues = {}

local function touch(job)
  if not touched_queues[job.queue] then
    touched_queues[job.queue] = true
    for _, name in ipairs({ 'age', 'leases', 'expiry', 'log_ages' }) do must_be('ZCARD', name) end
    for _, name in ipairs({ 'queues', 'unique', 'running', 'heads' }) do must_be('HLEN', name) end
    must_be('HLEN', 'counts:' .. job.queue)
    for _, name in ipairs({ 'lanes:', 'limited:', 'shown:' }) do must_be('ZCARD', name .. job.queue) end
  end
  if job.limit or job.state ~= 'running' then touch_lane(job) end
  if job.limit then touch_groups(job.limit) end
end

-- Records.

-- Fields that are numbers, and those that are 0 where a job has none.
local NUMBERS, COUNTS = {}, {}
for _, field in ipairs({ 'lease', 'lease_until', 'finished', 'unique_until', 'due' }) do NUMBERS[field] = true end
for _, field in ipairs({ 'attempt', 'crashes', 'generation', 'at', 'failures', 'logged', 'log_bytes' }) do
  NUMBERS[field], COUNTS[field] = true, 0
end
COUNTS = { __index = COUNTS }

-- What is stored of a job but for its payload; nothing if it is not there, and why if it makes no sense.
local function load(id)
  local record = redis.pcall('HGETALL', job_key(id))
  if record.err then return nil, 'it is not a hash' end
  if #record == 0 then return nil end
  local job = setmetatable({ id = id, record = record }, COUNTS)
  for i = 1, #record, 2 do
    local field, value = record[i], record[i + 1]
    if NUMBERS[field] then value = tonumber(value) end
    job[field] = value
  end
  local is = job.lane and parts_of(job.lane)
  if not (job.state and is) or (job.limit and not job.limit_max) then return nil, 'it lacks what every job has' end
  job.queue, job.priority, job.kind, job.tags = is.queue, is.priority, is.kind, is.tags
  job.due = job.due or job.at
  if job.run then job.started, job.worker = string.match(job.run, '^(%S+) (%S+)$') end
  return job
end

-- What the terms of a job say: attempts at most, for how many milliseconds it is kept after each of the ends, if not for
-- ever, and whether it has a limit or a unique key. Most jobs have the same.
local read_terms = setmetatable({}, { __index = function(known, terms)
  local max, succeeded, failed, cancelled, keys = string.match(terms, '^(%d+) (%S+) (%S+) (%S+)(.*)$')
  known[terms] = {
    max = tonumber(max) or 0, succeeded = tonumber(succeeded), failed = tonumber(failed), cancelled = tonumber(cancelled),
    is_plain = keys == '',
  }
  return known[terms]
end })

local function terms_of(job)
  return read_terms[job.terms or '']
end

-- When a job goes that has ended, if ever. One that was withdrawn stays (P8).
local function expiry_of(job, state, finished, reason)
  local keep = reason ~= 'moved' and terms_of(job)[state]
  return keep and later(finished, keep)
end

-- A payload is cut into fields of at most 64 bytes, named by their numbers, so that a hash of short fields takes half the
-- memory (`hash-max-listpack-value` is 64 unless somebody changed it). One that is longer than so many of them has a key
-- of its own.
local PIECES = { '1', '2', '3' }

local function payload_of(job)
  if not job['1'] then return redis.pcall('GET', prefix .. 'body:' .. job.id) end
  local pieces = {}
  for i, piece in ipairs(PIECES) do pieces[i] = job[piece] end
  return table.concat(pieces)
end

-- Puts the payloads that have keys of their own into records, pairs of id and record. One that is no text is left out.
local function with_payloads(records)
  for first = 1, #records, 100 do
    local last, keys = math.min(first + 99, #records), {}
    for i = first, last do keys[#keys + 1] = prefix .. 'body:' .. records[i][1] end
    for i, payload in ipairs(call('MGET', unpack(keys))) do
      if payload then
        local record = records[first + i - 1][2]
        local n = #record
        record[n + 1], record[n + 2] = '1', payload
      end
    end
  end
end

-- Sets fields, names and values in turn, and removes those of these that the job has.
local function save(job, set, unset)
  local key = job_key(job.id)
  if #set > 0 then call('HSET', key, unpack(set)) end
  if not unset then return end
  local gone = {}
  for _, field in ipairs(unset) do
    if rawget(job, field) then gone[#gone + 1] = field end
  end
  if #gone > 0 then call('HDEL', key, unpack(gone)) end
end

local function is_over(state)
  return state == 'succeeded' or state == 'failed' or state == 'cancelled'
end

local function seen_state(job)
  if job.state ~= 'waiting' then return job.state end
  return job.due > now and 'scheduled' or 'queued'
end

-- The waiting jobs of a lane are in the order in which they are given out. Of the jobs that share a limit key, a limit
-- and a lane, which are a group, only the first one stands in the lane, and only as long as the key has room. So a claim
-- never meets a job that it may not take.

local shown_lanes, changed_lanes = {}, {}

local function show(lane, due, id)
  add(ready[lane], due, id)
  changed_lanes[lane] = true
  if not shown_lanes[lane] then
    call('ZADD', prefix .. 'lanes:' .. queue_of(lane), parts_of(lane).priority, lane)
    shown_lanes[lane] = true
  end
end

local function hide(lane, id)
  remove(ready[lane], id)
  changed_lanes[lane], hidden_in[lane] = true, true
end

-- Lets the first of a group stand in its lane if there is room for it, and no other.
local function refresh(lane, limit, max)
  local group = group_of(lane, limit, max)
  local first = call('ZRANGE', prefix .. 'group:' .. group, 0, 0, 'WITHSCORES')
  local wanted = first[1] and running(limit) < tonumber(max) and first[1] or false
  local shown = call('HGET', prefix .. 'heads', group)
  if shown == wanted then return end
  local queue = queue_of(lane)
  if shown then
    hide(lane, shown)
    remove('shown:' .. queue, shown)
  end
  if wanted then
    show(lane, tonumber(first[2]), wanted)
    add('shown:' .. queue, tonumber(first[2]), wanted)
    call('HSET', prefix .. 'heads', group, wanted)
    tell_waiting(queue)
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
  if waits_for_room(job) then
    add('limited:' .. job.queue, job.due, job.id)
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
  if not waits_for_room(job) then return hide(lane, job.id) end
  remove('limited:' .. job.queue, job.id)
  local group = group_of(lane, job.limit, job.limit_max)
  call('ZREM', prefix .. 'group:' .. group, job.id)
  if call('HGET', prefix .. 'heads', group) == job.id then
    hide(lane, job.id)
    remove('shown:' .. job.queue, job.id)
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
    remove('leases', job.id)
    count(job.queue, 'running', -1)
    if job.limit then count_running(job.limit, -1) end
  else
    remove('expiry', job.id)
    count(job.queue, job.state, -1)
  end
end

-- Over all lanes of a queue, and over the jobs with limit keys that stand in none: how many are due in this range.
local function count_waiting(queue, first, last)
  local n = call('ZCOUNT', prefix .. 'limited:' .. queue, first, last) - call('ZCOUNT', prefix .. 'shown:' .. queue, first, last)
  for _, lane in ipairs(call('ZRANGE', prefix .. 'lanes:' .. queue, 0, -1)) do
    n = n + call('ZCOUNT', prefix .. ready[lane], first, last)
  end
  return n
end

-- When the first of them is due.
local function first_waiting(queue, first, last)
  local earliest = nil
  local function look(name)
    write(name)
    local due = call('ZRANGEBYSCORE', prefix .. name, first, last, 'WITHSCORES', 'LIMIT', 0, 1)[2]
    if due then earliest = math.min(earliest or LAST_MOMENT, tonumber(due)) end
  end
  look('limited:' .. queue)
  for _, lane in ipairs(call('ZRANGE', prefix .. 'lanes:' .. queue, 0, -1)) do look(ready[lane]) end
  return earliest
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

-- What a claim wrote of itself stays until the next: it holds only while the job runs.

-- The latest settlement of a job. That a holder let it succeed is told by its state and its claim: most jobs do.
local function latest_of(job)
  local succeeded = job.state == 'succeeded' and job.claim
  if not succeeded or (job.settled and string.sub(job.settled, 1, #succeeded) == succeeded) then return job.settled end
  return succeeded .. ' succeed 0'
end

-- Makes a job end that was taken out of its place, and sets these fields too.
local function finish(job, state, reason, set)
  local n = #set
  set[n + 1], set[n + 2], set[n + 3], set[n + 4] = 'state', state, 'finished', now_text
  if reason then set[n + 5], set[n + 6] = 'reason', reason end
  local expiry = expiry_of(job, state, now, reason)
  if expiry then add('expiry', expiry, job.id) end
  save(job, set)
  count(job.queue, state, 1)
  if job.scope ~= 'for' then free_key(job) end
  tell_changed(job, state)
end

-- Makes a job wait that was taken out of its place, sets these fields too, and removes those.
local function put_back(job, due, reason, set, unset)
  for _, item in ipairs({ 'state', 'waiting', 'due', text(due), reason and 'reason', reason }) do set[#set + 1] = item end
  local latest = job.state == 'succeeded' and latest_of(job)
  if latest then set[#set + 1], set[#set + 2] = 'settled', latest end
  save(job, set, unset)
  job.state, job.due = 'waiting', due
  wait(job)
  tell_changed(job, seen_state(job))
end

-- Removes a job that was taken out of its place.
local function forget(job)
  free_key(job)
  for newcomer in string.gmatch(job.replaced or '', '%S+') do call('HDEL', prefix .. 'replaced', newcomer) end
  remove('age', job.id)
  if job.log_bytes > 0 then remove('log_ages', job.id) end
  call('DEL', job_key(job.id), prefix .. 'body:' .. job.id, prefix .. 'log:' .. job.id)
  if job.log_bytes > 0 then call('HINCRBY', KEYS[1], 'log_bytes', text(-job.log_bytes)) end
  count(job.queue, 'deleted', 1)
end

-- Takes what is no job any more out of the way, as failed. What stood in its place is kept for whoever wants to see it.
local function set_aside(id, queue)
  local kind = call('TYPE', job_key(id)).ok
  if kind ~= 'hash' and kind ~= 'none' then call('RENAME', job_key(id), prefix .. 'unreadable:' .. id) end
  local unique = redis.pcall('HGET', job_key(id), 'unique')
  if type(unique) == 'string' then free_key({ id = id, unique = unique }) end
  -- It waits for no room under a limit key any more, and may not tell how much there is.
  call('HDEL', job_key(id), 'limit', 'limit_max', 'limit_ends')
  call('HSET', job_key(id), 'state', 'failed', 'reason', 'unreadable', 'lane', queue .. '\n0\nunreadable', 'finished', now_text)
  count(queue, 'failed', 1)
end
