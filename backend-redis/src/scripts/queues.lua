-- ARGV: now.
return run(function() return call('HGETALL', prefix .. 'queues') end)
