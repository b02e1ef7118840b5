-- ARGV: now, space, name, the version it must have or nothing.
return run(function()
  local space, name = ARGV[2], ARGV[3]
  must_be('ZCARD', 'registers:' .. space)
  must_be('ZCARD', 'registers_due:' .. space)
  local there = call('HGET', prefix .. 'register:' .. space .. ':' .. name, 'version')
  if ARGV[4] ~= '' and there ~= ARGV[4] then return 0 end
  return forget_register(space, name)
end)
