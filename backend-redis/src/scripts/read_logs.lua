-- ARGV: now, whether of a `job` or of a `worker`, which, after which sequence, limit.
local id, after, limit = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local lines = {}

local function show_line(job, entry)
  local is = entry[2]
  lines[#lines + 1] = { string.match(entry[1], '^%d+'), job, is[2], is[4], is[6], is[8], is[10] }
end

-- Lines that went with their job leave no gap; what names them is removed when somebody comes by, a bounded part at a time.
local function of_worker()
  local from, looks = after, 5
  while #lines < limit and looks > 0 do
    local named = call('XRANGE', prefix .. 'worker_log:' .. id, text(from + 1) .. '-0', '+', 'COUNT', math.min(limit - #lines, 1000))
    if #named == 0 then break end
    local stale = {}
    for _, name in ipairs(named) do
      local line = call('XRANGE', prefix .. 'log:' .. name[2][2], name[1], name[1])[1]
      if line then show_line(name[2][2], line) else stale[#stale + 1] = name[1] end
      from = tonumber(string.match(name[1], '^%d+'))
    end
    if #stale > 0 then call('XDEL', prefix .. 'worker_log:' .. id, unpack(stale)) end
    looks = looks - 1
  end
  return call('HGET', prefix .. 'log_gaps', id)
end

local function of_job()
  for _, entry in ipairs(call('XRANGE', prefix .. 'log:' .. id, text(after + 1) .. '-0', '+', 'COUNT', limit)) do
    show_line(id, entry)
  end
  return call('HGET', job_key(id), 'log_dropped')
end

return run(function()
  if limit == 0 then return { 0, {} } end
  local dropped
  if ARGV[2] == 'job' then dropped = of_job() else dropped = of_worker() end
  return { dropped and tonumber(dropped) > after and 1 or 0, lines }
end)
