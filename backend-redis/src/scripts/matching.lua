-- What `list` and `amend` share: a walk over the jobs by when they were taken in and by id.

-- How many jobs stand before this place, or up to it.
local function rank(at, id, up_to)
  local low = call('ZCOUNT', prefix .. 'age', '-inf', '(' .. at)
  local high = call('ZCOUNT', prefix .. 'age', '-inf', at)
  -- Those of one moment stand in the order of their ids.
  while low < high do
    local middle = math.floor((low + high) / 2)
    local there = call('ZRANGE', prefix .. 'age', middle, middle)[1]
    if there < id or (up_to and there == id) then low = middle + 1 else high = middle end
  end
  return low
end

local function set_of(items)
  if type(items) ~= 'table' then return nil end
  local set = {}
  for _, item in ipairs(items) do set[item] = true end
  return set
end

local function given(value)
  return value ~= nil and value ~= cjson.null and value or nil
end

-- A filter as its JSON says, as a function of a job.
local function filter_of(json)
  local filter = cjson.decode(json)
  local queues, states, reasons = set_of(filter.queues), set_of(filter.states), set_of(filter.reasons)
  local kinds, tags = set_of(filter.kinds), given(filter.tags) or {}
  local worker, class, part = given(filter.worker), given(filter.error_class), given(filter.payload_contains)
  local function has_tags(job)
    local has = {}
    for tag in string.gmatch(job.tags or '', '[^\n]+') do has[tag] = true end
    for _, tag in ipairs(tags) do
      if not has[tag] then return false end
    end
    return true
  end
  local function has_part(job)
    local payload = payload_of(job)
    return type(payload) == 'string' and string.find(payload, part, 1, true)
  end
  return function(job)
    return (not queues or queues[job.queue])
      and (not states or states[seen_state(job)])
      and (not reasons or (job.reason and reasons[job.reason]))
      and (not kinds or kinds[job.kind])
      and has_tags(job)
      and (not worker or job.worker == worker)
      and (not class or (job.failures > 0 and job.class == class))
      and (not part or has_part(job))
  end
end

-- The first jobs after a place that `wanted` takes, and after which place to go on, if there are more. ARGV from `at` on:
-- filter, first and last moment, whether newest first, moment and id of the place or nothing, limit, how many are looked at.
local function walk(at)
  local matches, first, last, newest_first = filter_of(ARGV[at]), ARGV[at + 1], ARGV[at + 2], ARGV[at + 3] == '1'
  local limit, looks, step = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7]), newest_first and -1 or 1
  local begin = call('ZCOUNT', prefix .. 'age', '-inf', '(' .. first)
  local stop = call('ZCOUNT', prefix .. 'age', '-inf', last) - 1
  if ARGV[at + 4] ~= '' and newest_first then
    stop = math.min(stop, rank(ARGV[at + 4], ARGV[at + 5], false) - 1)
  elseif ARGV[at + 4] ~= '' then
    begin = math.max(begin, rank(ARGV[at + 4], ARGV[at + 5], true))
  end
  local found, here, after = {}, newest_first and stop or begin, false
  while begin <= here and here <= stop do
    local low = newest_first and math.max(begin, here - 99) or here
    local high = newest_first and here or math.min(stop, here + 99)
    local ages = call('ZRANGE', prefix .. 'age', low, high, 'WITHSCORES')
    for i = newest_first and #ages - 1 or 1, newest_first and 1 or #ages, 2 * step do
      local job, why = load(ages[i])
      local match = (job and matches(job)) or why
      -- Only one more match shows that there is a next page.
      if looks == 0 or (match and #found == limit) then return found, after end
      looks, after = looks - 1, { ages[i + 1], ages[i] }
      if match then found[#found + 1] = job or { id = ages[i], unreadable = why } end
    end
    here = here + 100 * step
  end
  return found, false
end
