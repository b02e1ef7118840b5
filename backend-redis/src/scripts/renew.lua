-- ARGV: now, then of each lease: job, claim, length, progress or nothing.
return run(function()
  must_be('ZCARD', 'leases')
  local answers = {}
  for at = 2, #ARGV, 4 do
    local id = ARGV[at]
    local is = redis.pcall('HMGET', job_key(id), 'state', 'claim', 'lease_until', 'cancel')
    if is.err or is[1] ~= 'running' or is[2] ~= ARGV[at + 1] then
      answers[#answers + 1] = false
    else
      local until_when = math.max(tonumber(is[3]) or 0, later(now, tonumber(ARGV[at + 2])))
      local has_progress = ARGV[at + 3] ~= ''
      save({ id = id }, { 'lease_until', until_when, has_progress and 'progress' or nil, has_progress and ARGV[at + 3] or nil })
      add('leases', until_when, id)
      answers[#answers + 1] = { until_when, is[4] and 1 or 0 }
    end
  end
  return answers
end)
