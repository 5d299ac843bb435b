-- Start an attempt to merge the results of an evaluation.
-- KEYS  1 coordinator, or evaluator  2 round:N:evaluation:K
-- ARGV  1 token of that lease  2 attempt (1, 2, ...)
-- Invariant: attempts are counted one by one, and a result of the one before is no longer taken.
-- Returns {'ok', merging_ms} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local evaluation = redis.call('HMGET', KEYS[2], 'state', 'attempt')
local attempt = tonumber(ARGV[2])
local first = evaluation[1] == 'open' and attempt == 1
local again = evaluation[1] == 'merging' and tonumber(evaluation[2]) == attempt - 1
if not (first or again) then return {'state', tostring(evaluation[1])} end
local now = redis.call('TIME')
local ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
redis.call('HSET', KEYS[2], 'state', 'merging', 'attempt', ARGV[2], 'merging_ms', ms)
redis.call('HDEL', KEYS[2], 'error')
return {'ok', ms}
