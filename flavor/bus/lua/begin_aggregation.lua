-- Fix who contributes to a round and start an attempt to aggregate it.
-- KEYS  1 coordinator  2 run  3 round:N  4 log
-- ARGV  1 coordinator's token  2 N  3 attempt (1, 2, ...)  4 contributors (JSON)  5 reason
-- Invariant: after the first attempt the contributors of a round change only by leaving out those whose objects a worker
-- found spoiled (fail_attempt).
-- Returns {'ok', ''} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local run = redis.call('HGET', KEYS[2], 'state')
if run ~= 'running' then return {'state', tostring(run)} end
local round = redis.call('HMGET', KEYS[3], 'state', 'attempt')
local attempt = tonumber(ARGV[3])
local first = round[1] == 'open' and attempt == 1
local again = round[1] == 'aggregating' and tonumber(round[2]) == attempt - 1
if not (first or again) then return {'state', tostring(round[1])} end
redis.call('HSET', KEYS[3], 'state', 'aggregating', 'attempt', ARGV[3])
if first or redis.call('HEXISTS', KEYS[3], 'spoiled') == 1 then redis.call('HSET', KEYS[3], 'contributors', ARGV[4]) end
if redis.call('HEXISTS', KEYS[3], 'passing_ms') == 1 then redis.call('HINCRBY', KEYS[3], 'waits', 1) end
redis.call('HDEL', KEYS[3], 'lease', 'lease_ms', 'error', 'spoiled', 'passing_ms')
redis.call('XADD', KEYS[4], 'MAXLEN', '~', '100000', '*', 'event', 'round.aggregating', 'round', ARGV[2], 'reason', ARGV[5])
return {'ok', ''}
