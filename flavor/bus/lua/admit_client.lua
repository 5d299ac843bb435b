-- Make a client a member of the run.
-- KEYS  1 coordinator  2 run  3 members  4 log
-- ARGV  1 coordinator's token  2 client  3 reason  4 event of the log
-- Invariant: only the holder of the coordinator's lease admits a client: a coordinator to a run that has not ended, and
-- `flavor evaluate` to one that has. A member stays a member.
-- Returns ok (1 when new, 0 when known already) or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local state = redis.call('HGET', KEYS[2], 'state')
if not state then return {'state', 'gone'} end
local new = redis.call('SADD', KEYS[3], ARGV[2])
log_entry(KEYS[4], 'event', ARGV[4], 'client', ARGV[2], 'reason', ARGV[3])
return {'ok', tostring(new)}
