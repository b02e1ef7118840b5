-- ARGV: now, name, body, when it next fires or nothing, version, the version it must have or nothing.
return run(function()
  local name, due, version = ARGV[2], ARGV[4], ARGV[5]
  must_be('ZCARD', 'schedules')
  must_be('ZCARD', 'schedules_due')
  local there = call('HGET', prefix .. 'schedule:' .. name, 'version') or ''
  if there == version then return 1 end
  if there ~= ARGV[6] then return 0 end
  call('HSET', prefix .. 'schedule:' .. name, 'body', ARGV[3], 'next', due, 'version', version)
  call('ZADD', prefix .. 'schedules', 0, name)
  if due == '' then
    call('ZREM', prefix .. 'schedules_due', name)
  else
    call('ZADD', prefix .. 'schedules_due', due, name)
  end
  return 1
end)
