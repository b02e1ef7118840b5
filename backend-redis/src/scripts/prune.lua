-- ARGV: now, at most how many jobs, after how long workers are forgotten or nothing.
return run(function()
  local over = call('ZRANGEBYSCORE', prefix .. 'expiry', '-inf', '(' .. text(now), 'LIMIT', 0, ARGV[2])
  for _, id in ipairs(over) do
    local job = load(id)
    if job and is_over(job.state) then
      touch(job)
      leave(job)
      forget(job)
    else
      remove('expiry', id)
    end
  end
  local gone = {}
  if ARGV[3] ~= '' then
    gone = call('ZRANGEBYSCORE', prefix .. 'workers_seen', '-inf', '(' .. text(now - tonumber(ARGV[3])))
    for _, id in ipairs(gone) do
      call('ZREM', prefix .. 'workers_seen', id)
      call('ZREM', prefix .. 'workers', id)
      call('HDEL', prefix .. 'log_gaps', id)
      call('DEL', prefix .. 'worker:' .. id, prefix .. 'worker_log:' .. id)
    end
  end
  write('expiry')
  local more = call('ZCOUNT', prefix .. 'expiry', '-inf', '(' .. text(now))
  return { #over, #gone, more }
end)
