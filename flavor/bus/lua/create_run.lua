-- Create a run, once.
-- KEYS  1 run  2 log  3 flavor:runs  4 replaced: none are, when a run begins  5 flavor:removed
-- ARGV  1 name  2 rounds  3 config (JSON)  4 reason for the log  then field, value ... : run_id, protocol, and those of
--       the initial global model, if any, and of the run that has made it
-- Invariant: a run that exists is left untouched. A new run is in `flavor:runs` from its first moment, and has no
-- replaced keys, and was not removed: only an earlier run of the same name could have left that.
-- Returns 1, or 0 when a run of this name is there already.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local now = redis.call('TIME')
local ms = now[1] .. string.format('%03d', math.floor(now[2] / 1000))
redis.call('HSET', KEYS[1], 'state', 'waiting', 'round', '0', 'rounds', ARGV[2], 'config', ARGV[3],
           'created_ms', ms, 'reason', 'waiting for clients')
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('DEL', KEYS[4])
redis.call('ZADD', KEYS[3], now[1], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
log_entry(KEYS[2], 'event', 'run.created', 'reason', ARGV[4])
redis.call('PUBLISH', KEYS[1], 'waiting')
return 1
