-- ARGV: now, caps as in `lines`, then of each append: job, claim, position, number of lines, and of each line level and
-- message.
local heard = {}

-- Answers as `settle` does.
local function append_one(id, claim, position, lines)
  local job = load(id)
  if not job or job.state ~= 'running' or job.claim ~= claim then return 0 end
  local known = math.max(job.logged - position, 0)
  if #lines > 0 and known >= #lines then return 2 end
  local new, attempt = {}, text(job.attempt)
  for i = known + 1, #lines do
    local line = lines[i]
    new[#new + 1] = { attempt = attempt, worker = job.worker or '', at = now_text, level = line[1], message = line[2] }
  end
  touch(job)
  touch_log(job, new)
  save(job, { 'logged', math.max(job.logged, position + #lines) })
  if #new > 0 then
    append(job, new)
    heard[#heard + 1] = 'logged\t' .. id .. '\t' .. job.queue
  end
  return 1
end

return run(function()
  local answers, at = {}, 6
  while at <= #ARGV do
    local lines = {}
    for i = 1, tonumber(ARGV[at + 3]) do lines[i] = { ARGV[at + 2 + 2 * i], ARGV[at + 3 + 2 * i] } end
    answers[#answers + 1] = append_one(ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), lines)
    at = at + 4 + 2 * #lines
  end
  if #heard > 0 then redis.pcall('PUBLISH', prefix .. 'logged', table.concat(heard, '\n')) end
  return answers
end)
