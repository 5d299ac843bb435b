-- A part of the scripts that open a round, put before them: the task of each of its clients.
-- A task says from which model of the run to train. An update that lies where this round's belongs is none of it: it is
-- left by somebody who handed it in to a server that had lost the run.
-- KEYS  from `first` on, for each client: its task, its update
local function give_tasks(run, round, opened_ms, first)
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
  for i = first, #KEYS, 2 do
    redis.call('DEL', KEYS[i], KEYS[i + 1])
    redis.call('HSET', KEYS[i], unpack(task))
    redis.call('PUBLISH', KEYS[i], round)
  end
end
