-- ARGV: now, after which one or nothing, limit.
return run(function()
  local from = ARGV[2] == '' and '+' or '(' .. ARGV[2]
  local workers = {}
  for i, id in ipairs(call('ZREVRANGEBYLEX', prefix .. 'workers', from, '-', 'LIMIT', 0, ARGV[3])) do
    local is = call('HMGET', prefix .. 'worker:' .. id, 'info', 'started', 'seen', 'lost_after', 'left', 'stop')
    workers[i] = { id, is[1], is[2], is[3], is[4], is[5], is[6] and 1 or 0 }
  end
  return { now, workers }
end)
