-- ARGV: now, worker, what it says of itself, its host, after how long it is lost, whether it goes.
return run(function()
  local worker = prefix .. 'worker:' .. ARGV[2]
  must_be('HLEN', 'worker:' .. ARGV[2])
  must_be('ZCARD', 'workers')
  must_be('ZCARD', 'workers_seen')
  call('HSETNX', worker, 'started', now)
  call('HSET', worker, 'info', ARGV[3], 'host', ARGV[4], 'seen', now, 'lost_after', ARGV[5], 'left', ARGV[6])
  call('ZADD', prefix .. 'workers', 0, ARGV[2])
  call('ZADD', prefix .. 'workers_seen', now, ARGV[2])
  return call('HEXISTS', worker, 'stop')
end)
