-- Record that an attempt to aggregate went wrong, for the coordinator to retry or give up.
-- KEYS  1 round:N  2 log
-- ARGV  1 N  2 attempt  3 worker's token  4 reason  5 contributors whose objects were spoiled (JSON), or ''
--       6 '1' where the reason passes by itself, as a full store does: the attempt is made again and is not counted
--       7 the clients of 5 whose updates are to blame, and not their objects, each with the reason (JSON), or ''
--       8 '1' where each other attempt would end so
--       9 the other clients of 5 that are not at fault, each with the reason (JSON), or ''
-- Invariant: only the worker that holds the round's current attempt reports it, and the round's state stays: the
-- coordinator decides what comes next. The log names the clients of 5: their updates were accepted and do not count.
-- Returns {'ok', ''} or an error: state, lease.
local round = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'lease')
if round[1] ~= 'aggregating' or round[2] ~= ARGV[2] then return {'state', tostring(round[1])} end
if round[3] ~= ARGV[3] then return {'lease', tostring(round[3])} end
redis.call('HSET', KEYS[1], 'error', ARGV[4])
if ARGV[6] == '1' then
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'passing_ms', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
end
if ARGV[8] == '1' then redis.call('HSET', KEYS[1], 'hopeless', '1') end
local entry = {'event', 'round.attempt_failed', 'round', ARGV[1], 'reason', ARGV[4]}
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'spoiled', ARGV[5])
  redis.call('HDEL', KEYS[1], 'unfit', 'blameless')
  if ARGV[7] ~= '' then redis.call('HSET', KEYS[1], 'unfit', ARGV[7]) end
  if ARGV[9] ~= '' then redis.call('HSET', KEYS[1], 'blameless', ARGV[9]) end
  entry[#entry + 1] = 'spoiled'
  entry[#entry + 1] = ARGV[5]
end
log_entry(KEYS[2], unpack(entry))
redis.call('PUBLISH', KEYS[1], 'error')
return {'ok', ''}
