-- ARGV: now, at most how many jobs, after how long workers are forgotten or nothing, at most how many registers.
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
  local expired = call('ZRANGEBYSCORE', prefix .. 'registers_expiring', '-inf', '(' .. text(now), 'LIMIT', 0, ARGV[4])
  for _, entry in ipairs(expired) do
    local space, name = string.match(entry, '^([^:]*):(.*)$')
    forget_register(space, name)
  end
  local more = call('ZCOUNT', prefix .. 'expiry', '-inf', '(' .. text(now))
    + call('ZCOUNT', prefix .. 'registers_expiring', '-inf', '(' .. text(now))
  return { #over, #gone, #expired, more }
end)
