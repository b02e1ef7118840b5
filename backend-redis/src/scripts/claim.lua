-- ARGV: now, claim, worker, lease, limit, least priority or nothing, rule for kinds, rule for tags, how long claims are
-- remembered, whether it is within the rates of its queues, how many jobs without room may end, then three lists, each
-- behind its length: queues, kinds, tags.
local claim, worker, lease, limit = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local kind_rule, tag_rule = ARGV[7], ARGV[8]

local at = 12
local function list()
  local items, set = {}, {}
  for i = 1, tonumber(ARGV[at]) do
    items[i] = ARGV[at + i]
    set[items[i]] = true
  end
  at = at + 1 + #items
  return items, set
end
local queues = list()
local _, kinds = list()
local tags, offered = list()

-- A queue is paused with each root that it lies under (C10).
local function is_paused(queue)
  if call('SISMEMBER', prefix .. 'paused', queue) == 1 then return true end
  for stop in string.gmatch(queue, '/()') do
    if stop <= #queue and call('SISMEMBER', prefix .. 'paused', string.sub(queue, 1, stop - 1)) == 1 then return true end
  end
  return false
end

local function matches(lane)
  local kind, rest = string.match(lane, '^[^\n]*\n[^\n]*\n([^\n]*)(.*)$')
  if kind_rule == 'only' and not kinds[kind] or kind_rule == 'except' and kinds[kind] then return false end
  if tag_rule == 'any' then return true end
  local has = {}
  for tag in string.gmatch(rest, '[^\n]+') do
    has[tag] = true
    if tag_rule == 'worker' and not offered[tag] then return false end
  end
  if tag_rule == 'worker' then return true end
  for _, tag in ipairs(tags) do
    if not has[tag] then return false end
  end
  return true
end

-- What this very claim was given before and still holds (E2).
local function given_before(ids)
  local jobs, bare = {}, {}
  for id in string.gmatch(ids, '%S+') do
    local is = redis.pcall('HMGET', job_key(id), 'state', 'claim')
    if not is.err and is[1] == 'running' and is[2] == claim then
      local job = { id, call('HGETALL', job_key(id)) }
      jobs[#jobs + 1] = job
      if call('HEXISTS', job_key(id), '1') == 0 then bare[#bare + 1] = job end
    end
  end
  with_payloads(bare)
  return { now, false, jobs, {}, 1 }
end

-- The lanes that this claim takes from, by priority, highest first.
local function levels(open)
  local by_priority, order = {}, {}
  local least = ARGV[6] == '' and '-inf' or ARGV[6]
  for _, queue in ipairs(open) do
    local lanes = call('ZRANGEBYSCORE', prefix .. 'lanes:' .. queue, least, '+inf', 'WITHSCORES')
    for i = 1, #lanes, 2 do
      if matches(lanes[i]) then
        local priority = tonumber(lanes[i + 1])
        if not by_priority[priority] then
          by_priority[priority] = {}
          order[#order + 1] = priority
        end
        table.insert(by_priority[priority], { lane = lanes[i], queue = queue })
      end
    end
  end
  table.sort(order, function(a, b) return a > b end)
  return by_priority, order
end

local given, bare, ids, aside = {}, {}, {}, {}
-- How many jobs it has given out; how many without room it has ended, and how many it may.
local count_given, ended, most_ended = 0, 0, tonumber(ARGV[11])

local function is_enough()
  return count_given >= limit or ended >= most_ended
end

-- The first due job of a lane, of which some are read at once. When it is due matters beside other lanes alone.
local function first(source, some, is_alone)
  local name = ready[source.lane]
  if not source.ahead or changed_lanes[source.lane] or source.at > #source.ahead and source.more then
    write(name)
    if is_alone then
      source.ahead = call('ZRANGEBYSCORE', prefix .. name, '-inf', now_text, 'LIMIT', 0, some)
    else
      source.ahead = call('ZRANGEBYSCORE', prefix .. name, '-inf', now_text, 'WITHSCORES', 'LIMIT', 0, some)
    end
    source.step = is_alone and 1 or 2
    source.at, source.more = 1, #source.ahead == source.step * some
    changed_lanes[source.lane] = nil
  end
  source.id = source.ahead[source.at]
  if not is_alone then source.due = tonumber(source.ahead[source.at + 1] or nil) end
  return source.id
end

local function is_before(a, b)
  return a.due < b.due or (a.due == b.due and a.id < b.id)
end

-- The record may not tell the group of a job that makes no sense, so it is looked for.
local function drop(source, id)
  hide(source.lane, id)
  remove('limited:' .. source.queue, id)
  local heads = call('HGETALL', prefix .. 'heads')
  for i = 1, #heads, 2 do
    if heads[i + 1] == id then
      local lane, key, max = string.match(heads[i], '^(.-)\n\n([^\n]*)\n([^\n]*)$')
      call('ZREM', prefix .. 'group:' .. heads[i], id)
      call('HDEL', prefix .. 'heads', heads[i])
      remove('shown:' .. source.queue, id)
      refresh(lane, key, max)
    end
  end
  set_aside(id, source.queue)
  aside[#aside + 1] = id
end

-- What an earlier attempt may have left.
local NOT_OF_A_CLAIM = { 'reason', 'logged', 'cancel' }
local run_text = now_text .. ' ' .. worker
local usual_until = text(later(now, lease))

-- Gives a job out that was taken out of its lane.
local function give(job)
  local until_when = job.lease and text(later(now, job.lease)) or usual_until
  save(job, {
    'state', 'running', 'claim', claim, 'attempt', job.attempt + 1, 'run', run_text, 'lease_until', until_when,
  }, (job.run or job.reason) and NOT_OF_A_CLAIM)
  add('leases', until_when, job.id)
  count(job.queue, 'running', 1)
  tell_changed(job, 'running')
  count_given = count_given + 1
  given[count_given], ids[count_given] = { job.id, job.record }, job.id
  if not job['1'] then bare[#bare + 1] = given[count_given] end
end

local function take(source, job)
  local id = source.id
  source.at = source.at + source.step
  -- What stands in a lane that is not its own would be given out from there again.
  if not job or job.lane ~= source.lane then return drop(source, id) end
  touch(job)
  local before = changed_lanes[source.lane]
  leave_lane(job)
  if job.limit_ends and running(job.limit) >= tonumber(job.limit_max) then
    changed_lanes[source.lane] = before
    ended = ended + 1
    return finish(job, 'cancelled', 'limit_reached', {})
  end
  -- Its own going is no reason to read the lane again.
  if not waits_for_room(job) then changed_lanes[source.lane] = before end
  give(job)
  if job.scope == 'claimed' then free_key(job) end
  if job.limit then count_running(job.limit, 1) end
end

-- Takes the jobs without limit keys from the head of a lane, as long as the next lane has no better one: all of them leave
-- it by one command. Answers whether there were any, and else the job that is not like this.
local function take_run(source, next, is_alone)
  local jobs, job, n, most = {}, nil, 0, limit - count_given
  repeat
    job = load(source.id)
    if not job or job.limit or job.lane ~= source.lane then break end
    n = n + 1
    jobs[n], source.at = job, source.at + source.step
    source.id = source.ahead[source.at]
    if not is_alone then source.due = tonumber(source.ahead[source.at + 1] or nil) end
  until n >= most or not source.id or next and is_before(next, source)
  if n == 0 then return false, job end
  touch(jobs[1])
  write(ready[source.lane])
  call('ZREMRANGEBYRANK', prefix .. ready[source.lane], 0, n - 1)
  has_written, hidden_in[source.lane] = true, true
  for _, taken in ipairs(jobs) do
    give(taken)
    if taken.scope == 'claimed' then free_key(taken) end
  end
  return true
end

local function take_level(sources)
  local is_alone = #sources == 1
  local some = math.max(1, math.ceil((limit - count_given) / #sources))
  while not is_enough() do
    local best, next
    for _, source in ipairs(sources) do
      if first(source, some, is_alone) then
        if not best or is_before(source, best) then
          best, next = source, best
        elseif not next or is_before(source, next) then
          next = source
        end
      end
    end
    if not best then return end
    -- On from the best as long as no other lane has a better one, and none was changed by a limit.
    repeat
      local took, other = take_run(best, next, is_alone)
      if not took then take(best, other) end
    until is_enough() or next and changed_lanes[next.lane] or not first(best, some, is_alone)
      or next and is_before(next, best)
  end
end

return run(function()
  local known = call('GET', prefix .. 'claim:' .. claim)
  if known then return given_before(known) end
  local open = {}
  for _, queue in ipairs(queues) do
    local rated = ARGV[10] == '0' and call('SISMEMBER', prefix .. 'rated', queue) == 1
    if not rated and not is_paused(queue) then
      open[#open + 1] = queue
      waking[queue] = true
    end
  end
  local by_priority, order = levels(open)
  for _, priority in ipairs(order) do
    if is_enough() then break end
    take_level(by_priority[priority])
  end
  if #ids > 0 then call('SET', prefix .. 'claim:' .. claim, table.concat(ids, ' '), 'PX', ARGV[9]) end
  local next_due = false
  -- What stands behind the jobs that it has ended it did not come by.
  if count_given < limit and ended >= most_ended then
    next_due = 0
  elseif count_given < limit then
    for _, queue in ipairs(open) do
      next_due = math.min(next_due or math.huge, first_waiting(queue, '(' .. now_text, '+inf') or math.huge)
    end
  end
  with_payloads(bare)
  return { now, next_due ~= math.huge and next_due, given, aside, 0 }
end)
