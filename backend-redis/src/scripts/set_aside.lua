-- ARGV: now, for how long it is kept or nothing, then of each: job, claim. A record that a claim was given and that cannot
-- be read ends as failed.
return run(function()
  for at = 3, #ARGV, 2 do
    local job = load(ARGV[at])
    if job and job.state == 'running' and job.claim == ARGV[at + 1] then
      touch(job)
      leave(job)
      job.terms = '0 - ' .. (ARGV[2] ~= '' and ARGV[2] or '-') .. ' -'
      finish(job, 'failed', 'unreadable', {})
    end
  end
  return 1
end)
