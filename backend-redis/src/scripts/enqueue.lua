-- ARGV: now, jobs, how many newcomers a job remembers, then of each: id, rule of its due time and milliseconds, period of
-- its unique key or nothing, what it does to whoever holds that (nothing, `replace`, or at most how many milliseconds after
-- that one came it puts it off), number of fields, and so many names and values.
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
  local job = load(id)
  if not job or job.state ~= 'waiting' or job.kind ~= new.kind then return false end
  touch(job)
  touch({
    queue = job.queue, priority = new.priority, kind = job.kind, tags = job.tags, limit = job.limit,
    limit_max = job.limit_max, limit_ends = job.limit_ends,
  })
  local at_most = tonumber(new.on_conflict)
  local due = at_most and math.min(new.due, later(job.at, at_most)) or new.due
  leave_lane(job)
  local set = { 'priority', new.priority, 'replaced', remember(job, new.id) }
  local unset = { 'progress' }
  if #new.payload > SHORT then
    unset[2] = 'payload'
    call('SET', prefix .. 'body:' .. id, new.payload)
  else
    set[5], set[6] = 'payload', new.payload
    call('DEL', prefix .. 'body:' .. id)
  end
  job.priority, job.lane = tonumber(new.priority), nil
  put_back(job, due, 'replaced', set, unset)
  return true
end

return run(function()
  local jobs, at = {}, 4
  for i = 1, tonumber(ARGV[2]) do
    local job = { id = ARGV[at], due = due_by(ARGV[at + 1], ARGV[at + 2]) }
    local period, fields = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 5])
    job.on_conflict = ARGV[at + 4] ~= '' and ARGV[at + 4] or nil
    local record, n = { 'state', 'waiting', 'at', now_text, 'due', text(job.due) }, 6
    for field = at + 6, at + 4 + 2 * fields, 2 do
      local name, value = ARGV[field], ARGV[field + 1]
      job[name] = value
      if name ~= 'payload' or #value <= SHORT then
        record[n + 1], record[n + 2] = name, value
        n = n + 2
      end
    end
    if period then record[n + 1], record[n + 2] = 'unique_until', later(now, period) end
    job.record = record
    touch(job)
    if job.on_conflict then must_be('HLEN', 'replaced') end
    jobs[i], at = job, at + 6 + 2 * fields
  end
  -- From here on nothing fails but the first write, when there is no memory.
  local answers, known = {}, {}
  for i, job in ipairs(jobs) do
    local replaced = job.on_conflict and call('HGET', prefix .. 'replaced', job.id)
    local holder = job.unique and holder_of(job.unique)
    if call('EXISTS', job_key(job.id)) == 1 then
      answers[i] = 'existing'
    elseif replaced then
      answers[i] = 'replaced ' .. replaced
    elseif holder then
      answers[i] = job.on_conflict and replace(holder, job) and 'replaced ' .. holder or holder
    else
      call('HSET', job_key(job.id), unpack(job.record))
      if #job.payload > SHORT then call('SET', prefix .. 'body:' .. job.id, job.payload) end
      if job.unique then call('HSET', prefix .. 'unique', job.unique, job.id) end
      add('age', now, job.id)
      if not known[job.queue] then call('HSETNX', prefix .. 'queues', job.queue, '') end
      known[job.queue] = true
      job.state = 'waiting'
      wait(job)
      count(job.queue, 'enqueued', 1)
      tell_changed(job, seen_state(job))
      answers[i] = 'created'
    end
  end
  return answers
end)
