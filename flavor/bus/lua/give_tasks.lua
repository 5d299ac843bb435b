-- A part of the scripts that open a round, put before them: the task of each of its clients.
-- It says from which model of the run to train.
-- KEYS  from `first` to `last`, the task of each client
local function give_tasks(run, round, opened_ms, first, last)
  local task = {'opened_ms', opened_ms}
  local names = {'rounds', 'global_path', 'global_digest', 'global_size', 'global_seal', 'info_path', 'info_digest',
    'format'}
  local values = redis.call('HMGET', run, unpack(names))
  for i, name in ipairs(names) do
    if values[i] then
      task[#task + 1] = name
      task[#task + 1] = values[i]
    end
  end
  for i = first, last do
    redis.call('DEL', KEYS[i])
    redis.call('HSET', KEYS[i], unpack(task))
    redis.call('PUBLISH', KEYS[i], round)
  end
end
