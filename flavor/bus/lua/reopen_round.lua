-- Open a round again that lost its quorum: new deadline, perhaps other clients; what was accepted stands.
-- KEYS  1 coordinator  2 run  3 round:N  4 log  5 round:N:verdicts  6... task of each client that is new in it
-- ARGV  1 coordinator's token  2 N  3 timeout in ms  4 expected clients (JSON)  5 reason  6 which opening (2, 3, ...)
--       7 clients that had a task in it and are no longer expected (JSON)
-- Invariants: only the current round, while it takes updates, and each opening once; the global model stays the same.
-- No client is left out whose update was accepted after the caller had decided: nothing changes then, and the caller
-- looks again.
-- Returns {'ok', deadline_ms} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local run = redis.call('HMGET', KEYS[2], 'state', 'round')
if run[1] ~= 'running' or run[2] ~= ARGV[2] then return {'state', tostring(run[1])} end
local round = redis.call('HMGET', KEYS[3], 'state', 'openings', 'opened_ms', 'expected')
if round[1] ~= 'open' or tonumber(round[2] or '1') ~= tonumber(ARGV[6]) - 1 then return {'state', tostring(round[1])} end
local before = {}
for _, client in ipairs(cjson.decode(round[4])) do before[client] = true end
for _, client in ipairs(cjson.decode(ARGV[7])) do
  local verdict = before[client] and redis.call('HGET', KEYS[5], client)
  if verdict and cjson.decode(verdict).accepted then return {'state', 'decided without ' .. client .. ', which is accepted'} end
end
local now = redis.call('TIME')
local deadline = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + tonumber(ARGV[3]))
redis.call('HSET', KEYS[3], 'expected', ARGV[4], 'openings', ARGV[6], 'deadline_ms', deadline, 'left_out', ARGV[7])
redis.call('HSET', KEYS[2], 'deadline_ms', deadline)
give_tasks(KEYS[2], ARGV[2], round[3], 6, #KEYS)
log_entry(KEYS[4], 'event', 'round.reopened', 'round', ARGV[2], 'reason', ARGV[5])
return {'ok', deadline}
