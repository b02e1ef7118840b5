-- What the scripts share that add log lines; it stands after `jobs`. ARGV[2] to ARGV[5]: caps (lines of a job, bytes of a
-- job, bytes of all, lines of a worker). A line is a table of attempt, worker (empty for none), at, level and message.
local job_lines, job_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
local all_bytes, worker_lines = tonumber(ARGV[4]), tonumber(ARGV[5])

local function size_of(message)
  return #message + 64
end

local function sequence_of(entry)
  return string.match(entry[1], '^%d+')
end

-- Drops the oldest lines of a job until so many lines and bytes have gone, and notes for its readers and for those of its
-- workers which was the last (L3).
local function drop(id, lines, bytes)
  local log, dropped, gone = prefix .. 'log:' .. id, nil, 0
  while lines > 0 or bytes > 0 do
    local oldest, ids, gaps = call('XRANGE', log, '-', '+', 'COUNT', 100), {}, {}
    if #oldest == 0 then break end
    for _, entry in ipairs(oldest) do
      if lines <= 0 and bytes <= 0 then break end
      local size = size_of(entry[2][10])
      ids[#ids + 1], dropped, gaps[entry[2][4]] = entry[1], sequence_of(entry), sequence_of(entry)
      lines, bytes, gone = lines - 1, bytes - size, gone + size
    end
    call('XDEL', log, unpack(ids))
    for worker, sequence in pairs(gaps) do call('HSET', prefix .. 'log_gaps', worker, sequence) end
  end
  if dropped then
    call('HSET', job_key(id), 'log_dropped', dropped)
    call('HINCRBY', job_key(id), 'log_bytes', text(-gone))
    call('HINCRBY', KEYS[1], 'log_bytes', text(-gone))
  end
  local first = call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  if first then
    call('ZADD', prefix .. 'log_ages', sequence_of(first), id)
  else
    call('ZREM', prefix .. 'log_ages', id)
  end
end

-- A worker's log names the jobs alone; the lines stand in theirs.
local function bound_worker_log(worker)
  local log = prefix .. 'worker_log:' .. worker
  local over = call('XLEN', log) - worker_lines
  while over > 0 do
    local ids, last = {}, nil
    for _, entry in ipairs(call('XRANGE', log, '-', '+', 'COUNT', math.min(over, 1000))) do
      ids[#ids + 1], last = entry[1], sequence_of(entry)
    end
    over = over - call('XDEL', log, unpack(ids))
    call('HSET', prefix .. 'log_gaps', worker, last)
  end
end

local function touch_log(job, lines)
  must_be('HLEN', 'log_gaps')
  must_be('XLEN', 'log:' .. job.id)
  for _, line in ipairs(lines) do must_be('XLEN', 'worker_log:' .. line.worker) end
end

-- Adds lines to the log of a job, under the next sequences. Whether keys have the right types was looked at: `touch_log`.
local function append(job, lines)
  local last, bytes, workers = call('HINCRBY', KEYS[1], 'log_seq', #lines), 0, {}
  for i, line in ipairs(lines) do
    local id = text(last - #lines + i) .. '-0'
    call('XADD', prefix .. 'log:' .. job.id, id, 'attempt', line.attempt, 'worker', line.worker, 'at', line.at,
      'level', line.level, 'message', line.message)
    if line.worker ~= '' then
      call('XADD', prefix .. 'worker_log:' .. line.worker, id, 'job', job.id)
      workers[line.worker] = true
    end
    bytes = bytes + size_of(line.message)
  end
  for worker in pairs(workers) do bound_worker_log(worker) end
  local of_job = call('HINCRBY', job_key(job.id), 'log_bytes', bytes)
  local of_all = call('HINCRBY', KEYS[1], 'log_bytes', bytes)
  drop(job.id, call('XLEN', prefix .. 'log:' .. job.id) - job_lines, of_job - job_bytes)
  while of_all > all_bytes do
    local oldest = call('ZRANGE', prefix .. 'log_ages', 0, 0)[1]
    if not oldest then break end
    drop(oldest, 0, math.min(of_all - all_bytes, 65536))
    of_all = tonumber(call('HGET', KEYS[1], 'log_bytes'))
  end
end
