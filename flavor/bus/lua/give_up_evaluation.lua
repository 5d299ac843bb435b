-- End an evaluation that cannot have a result. Training goes on without it.
-- KEYS  1 coordinator, or evaluator  2 round:N:evaluation:K  3 log  4 evaluating  5 failing  6 unjudged
--       7... of each expected site: its task, its result, its evaluations
-- ARGV  1 token of that lease  2 N  3 K  4 reason
--       5 event: evaluation.failed, or evaluation.skipped where nothing went wrong
--       6 what people read of a failed one (JSON); '' for one that was skipped  7 1 for one of the coordinator's own
-- Invariants: an evaluation that has a result keeps it. `failing` counts what has failed since the last result of a
-- kind.
-- Returns {'ok', ''} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local state = redis.call('HGET', KEYS[2], 'state')
if state ~= 'open' and state ~= 'merging' then return {'state', tostring(state)} end
redis.call('HSET', KEYS[2], 'state', 'failed', 'reason', ARGV[4])
if ARGV[5] == 'evaluation.skipped' then redis.call('HSET', KEYS[2], 'unneeded', '1') end
redis.call('HDEL', KEYS[4], ARGV[2] .. ' ' .. ARGV[3])
for i = 7, #KEYS, 3 do
  redis.call('DEL', KEYS[i], KEYS[i + 1])
  redis.call('HDEL', KEYS[i + 2], ARGV[2] .. ' ' .. ARGV[3])
  redis.call('PUBLISH', KEYS[i + 2], '')
end
if ARGV[6] ~= '' then
  local now = redis.call('TIME')
  local ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
  local before = redis.call('HGET', KEYS[5], ARGV[3])
  local times = before and string.match(before, '^{"in_a_row":(%d+),') or '0'
  local entry = '{"in_a_row":' .. string.format('%.0f', times + 1) .. ',"over_ms":' .. ms .. ',' .. string.sub(ARGV[6], 2)
  if ARGV[7] == '1' then redis.call('HSET', KEYS[5], ARGV[3], entry) end
  redis.call('RPUSH', KEYS[6], entry)
end
log_entry(KEYS[3], 'event', ARGV[5], 'round', ARGV[2], 'evaluation', ARGV[3], 'reason', ARGV[4])
redis.call('PUBLISH', KEYS[2], 'failed')
return {'ok', ''}
