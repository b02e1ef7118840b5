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

-- Lua itself would write large numbers with an exponent. Most are written more than once.
local texts = {}
local function text(number)
  local known = texts[number]
  if not known then
    known = string.format('%.0f', number)
    texts[number] = known
  end
  return known
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

local now_text = text(now)

-- What goes into a sorted set and out of one is gathered and written many at a time: most of what a command costs is
-- the command. Whoever reads a set that was written in the same script has it written first. The very first one is
-- written at once: see above.

local gathered, has_written = {}, false

local function write(name)
  local of = gathered[name]
  if of then
    gathered[name] = nil
    call(of[1], of[2], unpack(of, 3))
  end
end

local function gather(verb, name)
  local of = gathered[name]
  if of and (of[1] ~= verb or of.n > 2000) then
    write(name)
    of = nil
  end
  if not of then
    of = { verb, prefix .. name, n = 2 }
    gathered[name] = of
  end
  return of
end

local function add(name, score, member)
  local of = gather('ZADD', name)
  local n = of.n
  of[n + 1], of[n + 2], of.n = text(score), member, n + 2
  has_written = true
end

local function remove(name, member)
  if not has_written then
    has_written = true
    call('ZREM', prefix .. name, member)
  else
    local of = gather('ZREM', name)
    of[of.n + 1], of.n = member, of.n + 1
  end
end

-- Counts, told events and the like are written once per call.

local counted, told, waking, changes = {}, {}, {}, 0

local function count(queue, what, by)
  local of = counted[queue]
  if not of then
    of = {}
    counted[queue] = of
  end
  of[what] = (of[what] or 0) + by
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

local function queue_of(lane)
  return string.match(lane, '^[^\n]*')
end

local hidden_in = {}

-- What cannot be written keeps nothing else from being written; why is told.
local function write_out()
  local failed = nil
  for name in pairs(gathered) do
    local written, why = pcall(write, name)
    if not written then failed = failed or why end
  end
  for lane in pairs(hidden_in) do
    if call('EXISTS', prefix .. 'ready:' .. lane) == 0 then
      call('ZREM', prefix .. 'lanes:' .. queue_of(lane), lane)
    end
  end
  for queue, of in pairs(counted) do
    for what, by in pairs(of) do
      if by ~= 0 then call('HINCRBY', prefix .. 'counts:' .. queue, what, text(by)) end
    end
  end
  -- Who may not publish has workers that poll.
  if #told > 0 then redis.pcall('PUBLISH', prefix .. 'events', table.concat(told, '\n')) end
  return failed
end

-- Runs the work of a script. What it wrote before it failed is counted all the same.
local function run(work)
  local worked, answer = pcall(work)
  local failed = write_out()
  if worked and failed then worked, answer = false, failed end
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
