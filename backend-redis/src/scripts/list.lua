-- ARGV: now, then as `walk` reads it.
return run(function()
  local found, after = walk(2)
  local jobs = {}
  for i, job in ipairs(found) do
    jobs[i] = { job.id, job.unreadable or whole(job.id, job.record) }
  end
  return { now, jobs, after }
end)
