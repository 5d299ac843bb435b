-- Give up the right to commit an attempt, so that another worker may take the same attempt.
-- KEYS  1 round:N  2 log
-- ARGV  1 N  2 attempt  3 worker's token  4 reason
-- Invariant: no attempt is counted as failed, and only the lease changes.
-- Returns {'ok', ''} or an error: state, lease.
local round = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'lease')
if round[1] ~= 'aggregating' or round[2] ~= ARGV[2] then return {'state', tostring(round[1])} end
if round[3] ~= ARGV[3] then return {'lease', tostring(round[3])} end
redis.call('HDEL', KEYS[1], 'lease', 'lease_ms')
log_entry(KEYS[2], 'event', 'round.given_back', 'round', ARGV[1], 'reason', ARGV[4])
return {'ok', ''}
