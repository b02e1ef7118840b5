-- ARGV: now, space, name, the version it must have or nothing.
return run(function()
  local space, name = ARGV[2], ARGV[3]
  must_be('ZCARD', 'registers:' .. space)
  must_be('ZCARD', 'registers_due:' .. space)
  local expected, key = ARGV[4], prefix .. 'register:' .. space .. ':' .. name
  if expected ~= '' and call('HGET', key, 'version') ~= expected then return 0 end
  return forget_register(space, name)
end)
