-- ARGV: now, whether of these queues alone, queues.
return run(function()
  local queues = {}
  if ARGV[2] == '1' then
    for i = 3, #ARGV do
      if call('HEXISTS', prefix .. 'queues', ARGV[i]) == 1 then queues[#queues + 1] = ARGV[i] end
    end
  else
    queues = call('HKEYS', prefix .. 'queues')
  end
  local answers = {}
  for i, queue in ipairs(queues) do
    local kept = call('HMGET', prefix .. 'counts:' .. queue, 'running', 'succeeded', 'failed', 'cancelled', 'enqueued', 'deleted')
    for at = 1, 6 do kept[at] = tonumber(kept[at] or 0) end
    answers[i] = {
      queue,
      { count_waiting(queue, '(' .. now_text, '+inf'), count_waiting(queue, '-inf', now_text), unpack(kept, 1, 4) },
      kept[5], kept[6], first_waiting(queue, '-inf', now_text) or false,
    }
  end
  return answers
end)
