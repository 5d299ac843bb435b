-- Fix the structure that all updates of a round without a model must have. Take back the acceptance of each update that
-- has another structure, so that it is inspected again.
-- KEYS  1 coordinator  2 round:N  3 log  4 round:N:verdicts  5 refusals
--       then the verdict of each client that has another structure
-- ARGV  1 coordinator's token  2 N  3 path, digest and size of the object that has it  4 reason  then those clients
-- Invariants: the structure is fixed only while the round is open, and only once. An acceptance that is taken back
-- forgives nothing: the client has its earlier refusals in a row again.
-- Returns {'ok', ''} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local round = redis.call('HMGET', KEYS[2], 'state', 'reference')
if round[1] ~= 'open' then return {'state', tostring(round[1])} end
if round[2] and round[2] ~= ARGV[3] then return {'state', 'decided otherwise'} end
redis.call('HSET', KEYS[2], 'reference', ARGV[3])
for i = 5, #ARGV do
  local forgiven = 'forgiven:' .. ARGV[i]
  local faults = redis.call('HGET', KEYS[2], forgiven)
  if faults then redis.call('HINCRBY', KEYS[5], ARGV[i], faults) end
  redis.call('HDEL', KEYS[2], forgiven)
  redis.call('HDEL', KEYS[4], ARGV[i])
end
for i = 6, #KEYS do redis.call('DEL', KEYS[i]) end
log_entry(KEYS[3], 'event', 'round.structure', 'round', ARGV[2], 'reason', ARGV[4])
return {'ok', ''}
