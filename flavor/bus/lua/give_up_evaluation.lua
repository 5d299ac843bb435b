-- End an evaluation that cannot have a result. Training goes on without it.
-- KEYS  1 coordinator, or evaluator  2 round:N:evaluation:K  3 log  4 evaluating
--       5... of each expected site: its task, its result, its evaluations
-- ARGV  1 token of that lease  2 N  3 K  4 reason  5 event: evaluation.failed, or evaluation.skipped where nothing went wrong
-- Invariant: an evaluation that has a result keeps it.
-- Returns {'ok', ''} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local state = redis.call('HGET', KEYS[2], 'state')
if state ~= 'open' and state ~= 'merging' then return {'state', tostring(state)} end
redis.call('HSET', KEYS[2], 'state', 'failed', 'reason', ARGV[4])
redis.call('HDEL', KEYS[4], ARGV[2] .. ' ' .. ARGV[3])
for i = 5, #KEYS, 3 do
  redis.call('DEL', KEYS[i], KEYS[i + 1])
  redis.call('HDEL', KEYS[i + 2], ARGV[2] .. ' ' .. ARGV[3])
  redis.call('PUBLISH', KEYS[i + 2], '')
end
log_entry(KEYS[3], 'event', ARGV[5], 'round', ARGV[2], 'evaluation', ARGV[3], 'reason', ARGV[4])
redis.call('PUBLISH', KEYS[2], 'failed')
return {'ok', ''}
