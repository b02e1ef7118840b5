-- ARGV: now, then ids.
return run(function()
  local jobs = {}
  for i = 2, #ARGV do
    local record = call('HGETALL', job_key(ARGV[i]))
    jobs[i - 1] = { now, #record > 0 and whole(ARGV[i], record) }
  end
  return jobs
end)
