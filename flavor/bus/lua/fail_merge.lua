-- Record that an attempt to merge the results of an evaluation went wrong; the coordinator decides what comes next.
-- KEYS  1 round:N:evaluation:K
-- ARGV  1 attempt  2 reason  3 '1' where another attempt would go wrong as well, else ''
-- Invariant: only the current attempt is reported, and the state stays: the coordinator decides.
-- Returns {'ok', ''} or an error: state.
local evaluation = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if evaluation[1] ~= 'merging' or evaluation[2] ~= ARGV[1] then return {'state', tostring(evaluation[1])} end
redis.call('HSET', KEYS[1], 'error', ARGV[2], 'hopeless', ARGV[3])
redis.call('PUBLISH', KEYS[1], 'error')
return {'ok', ''}
