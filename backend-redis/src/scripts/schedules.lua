-- ARGV: now, whether only those that are due, after which name or nothing, limit.
return run(function()
  local after, limit, names = ARGV[3], tonumber(ARGV[4]), {}
  if ARGV[2] == '1' then
    local due = call('ZRANGEBYSCORE', prefix .. 'schedules_due', '-inf', text(now))
    table.sort(due)
    for _, name in ipairs(due) do
      if name > after and #names < limit then names[#names + 1] = name end
    end
  else
    names = call('ZRANGEBYLEX', prefix .. 'schedules', after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, limit)
  end
  local schedules = {}
  for i, name in ipairs(names) do
    local is = call('HMGET', prefix .. 'schedule:' .. name, 'body', 'next', 'version')
    schedules[i] = { name, is[1], is[2], is[3] }
  end
  return schedules
end)
