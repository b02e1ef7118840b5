-- ARGV: now, jobs, how many newcomers a job remembers, then of each: id, when it is due (nothing if at once, `+` and
-- milliseconds from now, or `@` and a moment), lane, terms, number of what follows: names and values of fields, and behind
-- them a payload that is too long for one. Fields that are not written as they are: `period`, for which it holds its unique
-- key, and `on_conflict`, what it does to whoever holds that (`replace`, or at most how many milliseconds after that one
-- came it puts it off).
local remembered = tonumber(ARGV[3])

-- Remembers which newcomer replaced a job, and forgets the oldest where there are too many (E2).
local function remember(job, newcomer)
  local ids = {}
  for id in string.gmatch(job.replaced or '', '%S+') do ids[#ids + 1] = id end
  if #ids >= remembered then call('HDEL', prefix .. 'replaced', table.remove(ids, 1)) end
  ids[#ids + 1] = newcomer
  call('HSET', prefix .. 'replaced', newcomer, job.id)
  return table.concat(ids, ' ')
end

-- Gives the holder of a key what a newcomer brings, if it may have it, and tells whether it did (P4).
local function replace(id, new)
  local job, brings = load(id), parts_of(new.lane)
  if not job or job.state ~= 'waiting' or job.kind ~= brings.kind then return false end
  touch(job)
  touch({
    queue = job.queue, priority = brings.priority, kind = job.kind, tags = job.tags, limit = job.limit,
    limit_max = job.limit_max, limit_ends = job.limit_ends,
  })
  local at_most = tonumber(new.on_conflict)
  local due = at_most and math.min(new.due, later(job.at, at_most)) or new.due
  leave_lane(job)
  job.priority, job.lane = brings.priority, nil
  local set, unset = { 'lane', lane_of(job), 'replaced', remember(job, new.id) }, { 'progress' }
  for _, piece in ipairs(PIECES) do
    if new[piece] then
      set[#set + 1], set[#set + 2] = piece, new[piece]
    else
      unset[#unset + 1] = piece
    end
  end
  if new.body then call('SET', prefix .. 'body:' .. id, new.body) else call('DEL', prefix .. 'body:' .. id) end
  put_back(job, due, 'replaced', set, unset)
  return true
end

-- The job whose arguments begin here, and where the next one's do. What most jobs have is written as it was given.
local function read(at)
  local count = tonumber(ARGV[at + 4])
  local fields = count - count % 2
  local job = { id = ARGV[at], lane = ARGV[at + 2], terms = ARGV[at + 3], state = 'waiting', due = now }
  job.key, job.queue = job_key(job.id), parts_of(job.lane).queue
  job.first, job.last, job.body = at + 5, at + 4 + fields, count > fields and ARGV[at + 4 + count]
  local due = ARGV[at + 1]
  if due == '' and terms_of(job).is_plain then return job, at + 5 + count end
  local own = {}
  if due ~= '' then
    job.due = due_by(string.sub(due, 1, 1) == '@' and 'at' or 'in', string.sub(due, 2))
    own[1], own[2] = 'due', text(job.due)
  end
  for field = job.first, job.last, 2 do
    local name, value = ARGV[field], ARGV[field + 1]
    job[name] = value
    if name == 'period' then name, value = 'unique_until', later(now, tonumber(value)) end
    if name ~= 'on_conflict' then own[#own + 1], own[#own + 2] = name, value end
  end
  job.own = own
  return job, at + 5 + count
end

-- Which of these jobs are there. Mostly none is, and one look tells.
local function which_are_there(jobs)
  local there = {}
  for first = 1, #jobs, 1000 do
    local keys = {}
    for i = first, math.min(first + 999, #jobs) do keys[#keys + 1] = jobs[i].key end
    if call('EXISTS', unpack(keys)) > 0 then
      for i = first, first + #keys - 1 do there[jobs[i].id] = call('EXISTS', jobs[i].key) == 1 end
    end
  end
  return there
end

local known = {}

local function create(job)
  local key, lane, terms = job.key, job.lane, job.terms
  if job.own then
    call('HSET', key, 'state', 'waiting', 'at', now_text, 'lane', lane, 'terms', terms, unpack(job.own))
  else
    call('HSET', key, 'state', 'waiting', 'at', now_text, 'lane', lane, 'terms', terms, unpack(ARGV, job.first, job.last))
  end
  if job.body then call('SET', prefix .. 'body:' .. job.id, job.body) end
  if job.unique then call('HSET', prefix .. 'unique', job.unique, job.id) end
  add('age', now, job.id)
  if not known[job.queue] then
    call('HSETNX', prefix .. 'queues', job.queue, '')
    known[job.queue] = true
  end
  wait(job)
  count(job.queue, 'enqueued', 1)
  tell_changed(job, seen_state(job))
end

-- Answers 1 for a job that was taken in, 0 for one that was there, and else who holds its key.
return run(function()
  local jobs, at = {}, 4
  for i = 1, tonumber(ARGV[2]) do
    local job
    job, at = read(at)
    touch(job)
    if job.on_conflict then must_be('HLEN', 'replaced') end
    jobs[i] = job
  end
  -- From here on nothing fails but the first write, when there is no memory.
  local answers, there = {}, which_are_there(jobs)
  for i, job in ipairs(jobs) do
    local replaced = job.on_conflict and call('HGET', prefix .. 'replaced', job.id)
    local holder = job.unique and holder_of(job.unique)
    if there[job.id] then
      answers[i] = 0
    elseif replaced then
      answers[i] = 'replaced ' .. replaced
    elseif holder then
      answers[i] = job.on_conflict and replace(holder, job) and 'replaced ' .. holder or holder
    else
      create(job)
      there[job.id], answers[i] = true, 1
    end
  end
  return answers
end)
