-- ARGV: now, space, name, body, when it is next due or nothing, when it expires or nothing, version, the version it must
-- have or nothing.
return run(function()
  local space, name, due, expires, version = ARGV[2], ARGV[3], ARGV[5], ARGV[6], ARGV[7]
  local key = prefix .. 'register:' .. space .. ':' .. name
  must_be('ZCARD', 'registers:' .. space)
  must_be('ZCARD', 'registers_due:' .. space)
  must_be('ZCARD', 'registers_expiring')
  local there = call('HGET', key, 'version') or ''
  if there == version then return 1 end
  if there ~= ARGV[8] then return 0 end
  call('HSET', key, 'body', ARGV[4], 'next', due, 'expires', expires, 'version', version)
  call('ZADD', prefix .. 'registers:' .. space, 0, name)
  if due == '' then
    call('ZREM', prefix .. 'registers_due:' .. space, name)
  else
    call('ZADD', prefix .. 'registers_due:' .. space, due, name)
  end
  if expires == '' then
    call('ZREM', prefix .. 'registers_expiring', space .. ':' .. name)
  else
    call('ZADD', prefix .. 'registers_expiring', expires, space .. ':' .. name)
  end
  return 1
end)
