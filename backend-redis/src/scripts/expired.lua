-- ARGV: now, limit.
return run(function()
  local over = call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', '(' .. text(now), 'LIMIT', 0, ARGV[2])
  local leases = {}
  for _, id in ipairs(over) do
    local job = load(id)
    if job and job.state == 'running' then
      -- Nobody asks for the payload.
      job.record[#job.record + 1] = '1'
      job.record[#job.record + 1] = ''
      leases[#leases + 1] = { id, job.record }
    else
      -- Nobody can tell of which queue it was, so it is counted nowhere.
      call('ZREM', prefix .. 'leases', id)
    end
  end
  return { now, leases }
end)
