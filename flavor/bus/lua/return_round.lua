-- Take a round back from its aggregation because too few updates are left: those whose updates were spoiled are
-- refused, and their clients may hand in again. What else was accepted stands.
-- KEYS  1 coordinator  2 run  3 round:N  4 round:N:verdicts  5 log  6 refusals
--       then the verdict of each client whose update was spoiled
-- ARGV  1 coordinator's token  2 N  3 attempt that failed  4 reason  then what refuse_spoiled takes
-- Invariants: only the current round, and only after that attempt failed; the global model stays the same.
-- Returns {'ok', ''} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local run = redis.call('HMGET', KEYS[2], 'state', 'round')
if run[1] ~= 'running' or run[2] ~= ARGV[2] then return {'state', tostring(run[1])} end
local round = redis.call('HMGET', KEYS[3], 'state', 'attempt', 'error')
if round[1] ~= 'aggregating' or round[2] ~= ARGV[3] or not round[3] then return {'state', tostring(round[1])} end
redis.call('HSET', KEYS[3], 'state', 'open', 'attempt', '0')
redis.call('HDEL', KEYS[3], 'lease', 'lease_ms', 'error', 'spoiled', 'unfit', 'blameless', 'passing_ms', 'hopeless',
           'waits', 'contributors')
refuse_spoiled(ARGV[2], KEYS[3], KEYS[4], KEYS[6], 7, 5)
log_entry(KEYS[5], 'event', 'round.returned', 'round', ARGV[2], 'reason', ARGV[4])
return {'ok', ''}
