-- ARGV: now, queue, settings, whether it is paused.
return run(function()
  must_be('HLEN', 'queues')
  must_be('SCARD', 'paused')
  local queue, paused = ARGV[2], ARGV[4] == '1'
  call('HSET', prefix .. 'queues', queue, text(now) .. '\n' .. ARGV[3])
  local changed = call(paused and 'SADD' or 'SREM', prefix .. 'paused', queue)
  told[#told + 1] = 'queue\t' .. queue
  if changed == 1 and not paused then tell_waiting(queue) end
  return 1
end)
