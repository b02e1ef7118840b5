-- ARGV: now, queue, settings, whether it is paused, whether it has a rate.
return run(function()
  must_be('HLEN', 'queues')
  must_be('SCARD', 'paused')
  must_be('SCARD', 'rated')
  local queue, paused, rated = ARGV[2], ARGV[4] == '1', ARGV[5] == '1'
  call('HSET', prefix .. 'queues', queue, text(now) .. '\n' .. ARGV[3])
  local changed = call(paused and 'SADD' or 'SREM', prefix .. 'paused', queue)
    + call(rated and 'SADD' or 'SREM', prefix .. 'rated', queue)
  told[#told + 1] = 'queue\t' .. queue
  if changed > 0 and not paused then tell_waiting(queue) end
  return 1
end)
