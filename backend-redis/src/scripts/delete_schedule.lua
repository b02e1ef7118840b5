-- ARGV: now, name.
return run(function()
  must_be('ZCARD', 'schedules_due')
  call('ZREM', prefix .. 'schedules_due', ARGV[2])
  call('DEL', prefix .. 'schedule:' .. ARGV[2])
  return call('ZREM', prefix .. 'schedules', ARGV[2])
end)
