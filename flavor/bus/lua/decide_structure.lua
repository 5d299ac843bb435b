-- Fix the structure that the updates of a round have which starts from no model, and take back what was accepted of
-- others, to be inspected again against it.
-- KEYS  1 coordinator  2 round:N  3 log  4 round:N:verdicts  then the verdict of each client that has another structure
-- ARGV  1 coordinator's token  2 N  3 path, digest and size of the object that has it  4 reason  then those clients
-- Invariant: only while the round is open, and once: what was fixed stays.
-- Returns {'ok', ''} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local round = redis.call('HMGET', KEYS[2], 'state', 'reference')
if round[1] ~= 'open' then return {'state', tostring(round[1])} end
if round[2] and round[2] ~= ARGV[3] then return {'state', 'decided otherwise'} end
redis.call('HSET', KEYS[2], 'reference', ARGV[3])
for i = 5, #ARGV do redis.call('HDEL', KEYS[4], ARGV[i]) end
for i = 5, #KEYS do redis.call('DEL', KEYS[i]) end
log_entry(KEYS[3], 'event', 'round.structure', 'round', ARGV[2], 'reason', ARGV[4])
return {'ok', ''}
