-- ARGV: now, then ids.
return run(function()
  local jobs, bare = {}, {}
  for i = 2, #ARGV do
    local record = call('HGETALL', job_key(ARGV[i]))
    jobs[i - 1] = { now, #record > 0 and record }
    if #record > 0 and call('HEXISTS', job_key(ARGV[i]), '1') == 0 then bare[#bare + 1] = { ARGV[i], record } end
  end
  with_payloads(bare)
  return jobs
end)
