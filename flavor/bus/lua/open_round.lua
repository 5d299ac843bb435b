-- Open the next round and give each expected client its task.
-- KEYS  1 coordinator  2 run  3 round:N  4 log  5 round:N:verdicts  6 round:N:measured  7... task of each client that
--       gets one, and then the update of each
-- ARGV  1 coordinator's token  2 N  3 timeout in ms  4 expected clients (JSON)  5 reason
--       6 clients that go on with the task of an earlier round, and its number (JSON); '' in a synchronous run
--       7 clients that have missed deadlines, and how many in a row (JSON); '' for none
--       8 '1' if the run tells its sites the deadline
--       9 clients whose tasks were given up as too old, and how many in a row (JSON); '' for none
-- Invariants: rounds only go up, round N opens only when round N-1 is closed, and everyone trains from the run's
-- current global model but for those that go on, whose task and update are not touched; the model is read here and not
-- taken from a caller that may have read it earlier. A round begins empty: keys of a round of this number, written to
-- a server that had lost the run, are deleted.
-- Returns {'ok', opened_ms} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local run = redis.call('HMGET', KEYS[2], 'state', 'round')
if run[1] ~= 'waiting' and run[1] ~= 'running' then return {'state', tostring(run[1])} end
if tonumber(run[2]) ~= tonumber(ARGV[2]) - 1 then return {'state', 'round ' .. run[2]} end
local now = redis.call('TIME')
local opened = now[1] * 1000 + math.floor(now[2] / 1000)
local ms = string.format('%.0f', opened)
local last = 6 + (#KEYS - 6) / 2
redis.call('DEL', KEYS[3], KEYS[5], KEYS[6])
for i = last + 1, #KEYS do redis.call('DEL', KEYS[i]) end
redis.call('HSET', KEYS[3], 'state', 'open', 'expected', ARGV[4], 'opened_ms', ms, 'attempt', '0',
           'deadline_ms', string.format('%.0f', opened + tonumber(ARGV[3])))
if ARGV[6] ~= '' then redis.call('HSET', KEYS[3], 'since', ARGV[6]) end
if ARGV[8] == '1' then
  redis.call('HSET', KEYS[2], 'deadline_ms', string.format('%.0f', opened + tonumber(ARGV[3])))
else
  redis.call('HDEL', KEYS[2], 'deadline_ms')
end
if ARGV[7] ~= '' then redis.call('HSET', KEYS[3], 'missed', ARGV[7]) end
if ARGV[9] ~= '' then redis.call('HSET', KEYS[3], 'outdated', ARGV[9]) end
redis.call('HSET', KEYS[2], 'state', 'running', 'round', ARGV[2], 'reason', ARGV[5])
give_tasks(KEYS[2], ARGV[2], ms, 7, last)
log_entry(KEYS[4], 'event', 'round.opened', 'round', ARGV[2], 'reason', ARGV[5])
return {'ok', ms}
