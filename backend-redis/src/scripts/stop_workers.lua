-- ARGV: now, whether `one`, those of a `host` or `all`, which one or which host.
return run(function()
  local workers = ARGV[2] == 'one' and { ARGV[3] } or call('ZRANGE', prefix .. 'workers', 0, -1)
  local asked = 0
  for _, id in ipairs(workers) do
    local is = call('HMGET', prefix .. 'worker:' .. id, 'host', 'left')
    if is[2] == '' and (ARGV[2] ~= 'host' or is[1] == ARGV[3]) then
      call('HSET', prefix .. 'worker:' .. id, 'stop', 1)
      asked = asked + 1
    end
  end
  return asked
end)
