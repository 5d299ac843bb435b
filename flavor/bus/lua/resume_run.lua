-- Let a run that has ended go on: its state, its settings, and its last round where that was not closed.
-- KEYS  1 coordinator  2 run  3 log  4 round:N of the current round  5 round:N:verdicts  6, 7 the
--       evaluations of its model by the sites and on the operator's data  then, of each client whose object was
--       spoiled, or whose update was refused because of the global model, its update and its verdict in this round
-- ARGV  1 token of the coordinator's lease  2 N  3 config (JSON)  4 rounds  5 reason  6 settings that were ever changed
--       (JSON)  7 timeout of the round in ms  8 the newest closed round  then these clients
-- Invariants: only a run that has ended, and only while no coordinator serves it. What was accepted in the round
-- stands, but for the spoiled; the global model stays the same. The round keeps when it was opened, how often it was
-- opened and tried, and for which times the run had ended: `pauses`, a JSON of [ended_ms, resumed_ms], oldest first.
-- The run keeps for how long it had ended: `paused_ms`. An evaluation of the newest model that the end of the run has
-- cut off is removed, so that the coordinator opens it anew: one of `unneeded`. Others stay as they ended.
-- Returns {'ok', ''} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local run = redis.call('HMGET', KEYS[2], 'state', 'round', 'ended_ms')
if not run[1] or run[1] == 'waiting' or run[1] == 'running' then return {'state', tostring(run[1])} end
if run[2] ~= ARGV[2] then return {'state', 'in another round'} end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local ended_ms = math.min(ms, tonumber(run[3]) or ms)
redis.call('HINCRBY', KEYS[2], 'paused_ms', string.format('%.0f', ms - ended_ms))
redis.call('HSET', KEYS[2], 'state', ARGV[2] == '0' and 'waiting' or 'running', 'config', ARGV[3], 'rounds', ARGV[4],
           'reason', ARGV[5], 'changed', ARGV[6], 'resumed_ms', string.format('%.0f', ms), 'resumed_round', ARGV[8])
redis.call('HDEL', KEYS[2], 'ended_ms', 'met')
local round = redis.call('HMGET', KEYS[4], 'state', 'pauses', 'openings', 'attempt')
if round[1] == 'failed' then
  local pause = string.format('[%.0f,%.0f]', ended_ms, ms)
  redis.call('HSET', KEYS[4], 'state', 'open', 'attempt', '0', 'resumed', '1',
             'deadline_ms', string.format('%.0f', ms + tonumber(ARGV[7])),
             'pauses', round[2] and string.sub(round[2], 1, -2) .. ',' .. pause .. ']' or '[' .. pause .. ']')
  if redis.call('HEXISTS', KEYS[2], 'deadline_ms') == 1 then
    redis.call('HSET', KEYS[2], 'deadline_ms', string.format('%.0f', ms + tonumber(ARGV[7])))
  end
  redis.call('HINCRBY', KEYS[4], 'earlier_openings', round[3] or '1')
  redis.call('HINCRBY', KEYS[4], 'earlier_attempts', round[4] or '0')
  redis.call('HDEL', KEYS[4], 'lease', 'lease_ms', 'error', 'passing_ms', 'waits', 'spoiled', 'unfit',
             'blameless', 'contributors', 'openings', 'reason', 'hopeless')
  for i = 9, #ARGV do redis.call('HDEL', KEYS[5], ARGV[i]) end
  for i = 8, #KEYS do redis.call('DEL', KEYS[i]) end
else
  for i = 6, 7 do
    if redis.call('HGET', KEYS[i], 'unneeded') == '1' then redis.call('DEL', KEYS[i]) end
  end
end
log_entry(KEYS[3], 'event', 'run.resumed', 'round', ARGV[2], 'reason', ARGV[5])
redis.call('PUBLISH', KEYS[2], 'resumed')
return {'ok', ''}
