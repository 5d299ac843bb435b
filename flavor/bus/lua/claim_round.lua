-- Take, or renew, the right to commit an attempt.
-- KEYS  1 round:N
-- ARGV  1 attempt  2 worker's token  3 lifetime in ms  4 take or renew
-- Invariant: only the worker that has taken it renews it. After a failover to an older state, or `flavor recover`, an
--            attempt of the same number may be another one, of other contributors, which no worker has taken yet.
-- Returns {'ok', ''} or an error: state (another attempt is current), lease (another worker holds this one).
local round = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'lease', 'lease_ms')
if round[1] ~= 'aggregating' or round[2] ~= ARGV[1] then
  return {'state', tostring(round[1]) .. ', attempt ' .. tostring(round[2])}
end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[4] == 'renew' and round[3] ~= ARGV[2] then return {'lease', tostring(round[3])} end
if round[3] and round[3] ~= ARGV[2] and tonumber(round[4]) > ms then return {'lease', round[3]} end
redis.call('HSET', KEYS[1], 'lease', ARGV[2], 'lease_ms', string.format('%.0f', ms + tonumber(ARGV[3])))
return {'ok', ''}
