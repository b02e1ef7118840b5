-- ARGV: now, space, name.
return run(function()
  local space, name = ARGV[2], ARGV[3]
  must_be('ZCARD', 'registers:' .. space)
  must_be('ZCARD', 'registers_due:' .. space)
  return forget_register(space, name)
end)
