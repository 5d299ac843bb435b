-- Keep the newest result of `flavor contributions`, for people.
-- KEYS  1 run  2 contributions
-- ARGV  1 run_id  2 the result, as JSON
-- Invariant: a run that is not there, or another one of this name, gets none, and no state changes.
-- Returns 1, or 0 for no such run.
if redis.call('HGET', KEYS[1], 'run_id') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'run_id', ARGV[1], 'result', ARGV[2])
return 1
