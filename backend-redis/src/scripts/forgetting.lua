local function forget_register(space, name)
  call('ZREM', prefix .. 'registers_expiring', space .. ':' .. name)
  call('ZREM', prefix .. 'registers_due:' .. space, name)
  call('DEL', prefix .. 'register:' .. space .. ':' .. name)
  return call('ZREM', prefix .. 'registers:' .. space, name)
end
