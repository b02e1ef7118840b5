-- ARGV: now, jobs, then of each: id, rule of its due time and milliseconds, period of its unique key or nothing, number of
-- fields, and so many names and values.
return run(function()
  local jobs, at = {}, 3
  for i = 1, tonumber(ARGV[2]) do
    local job = { id = ARGV[at], due = due_by(ARGV[at + 1], ARGV[at + 2]) }
    local period, fields = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local record, n = { 'state', 'waiting', 'at', now_text, 'due', text(job.due) }, 6
    for field = at + 5, at + 3 + 2 * fields, 2 do
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
    jobs[i], at = job, at + 5 + 2 * fields
  end
  -- From here on nothing fails but the first write, when there is no memory.
  local answers, known = {}, {}
  for i, job in ipairs(jobs) do
    local holder = job.unique and holder_of(job.unique)
    if call('EXISTS', job_key(job.id)) == 1 then
      answers[i] = 'existing'
    elseif holder then
      answers[i] = holder
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
