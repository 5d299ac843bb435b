-- Give clients that have become ready the task of an asynchronous round that is open.
-- KEYS  1 coordinator  2 run  3 round:N  4 log  5... task of each such client, and then the update of each
-- ARGV  1 coordinator's token  2 N  3 expected clients, with the new ones (JSON)  4 reason
-- Invariants: only the current round, while it takes updates, and only in an asynchronous run: everyone trains from the
-- run's current global model, which does not change while the round is open. No client is left out that was expected.
-- Returns {'ok', ''} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local run = redis.call('HMGET', KEYS[2], 'state', 'round')
if run[1] ~= 'running' or run[2] ~= ARGV[2] then return {'state', tostring(run[1])} end
local round = redis.call('HMGET', KEYS[3], 'state', 'opened_ms', 'since', 'expected')
if round[1] ~= 'open' or not round[3] then return {'state', tostring(round[1])} end
local kept = {}
for _, client in ipairs(cjson.decode(ARGV[3])) do kept[client] = true end
for _, client in ipairs(cjson.decode(round[4])) do
  if not kept[client] then return {'state', 'decided without ' .. client .. ', which is expected'} end
end
local last = 4 + (#KEYS - 4) / 2
for i = last + 1, #KEYS do redis.call('DEL', KEYS[i]) end
redis.call('HSET', KEYS[3], 'expected', ARGV[3])
give_tasks(KEYS[2], ARGV[2], round[2], 5, last)
log_entry(KEYS[4], 'event', 'round.note', 'round', ARGV[2], 'reason', ARGV[4])
return {'ok', ''}
