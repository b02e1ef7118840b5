-- ARGV: now, then as `walk` reads it.
return run(function()
  local found, after = walk(2)
  local jobs, bare = {}, {}
  for i, job in ipairs(found) do
    jobs[i] = { job.id, job.unreadable or job.record }
    if not job.unreadable and not job['1'] then bare[#bare + 1] = jobs[i] end
  end
  with_payloads(bare)
  return { now, jobs, after }
end)
