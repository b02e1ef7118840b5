-- ARGV: now, space, whether only those that are due, only the one of which name or nothing, after which name or nothing,
-- limit.
return run(function()
  local space, only, after, limit, names = ARGV[2], ARGV[4], ARGV[5], tonumber(ARGV[6]), {}
  if only ~= '' then
    names[1] = only
  elseif ARGV[3] == '1' then
    local due = call('ZRANGEBYSCORE', prefix .. 'registers_due:' .. space, '-inf', text(now))
    table.sort(due)
    for _, name in ipairs(due) do
      if name > after and #names < limit then names[#names + 1] = name end
    end
  else
    local from = after == '' and '-' or '(' .. after
    names = call('ZRANGEBYLEX', prefix .. 'registers:' .. space, from, '+', 'LIMIT', 0, limit)
  end
  local registers = {}
  for _, name in ipairs(names) do
    local is = call('HMGET', prefix .. 'register:' .. space .. ':' .. name, 'body', 'next', 'expires', 'version')
    if is[4] then registers[#registers + 1] = { name, is[1], is[2], is[3], is[4] } end
  end
  return { now, registers }
end)
