-- Note that an inspection of an open round could not be done, because of a store that is full or away for now.
-- KEYS  1 round:N
-- Invariant: a round that is not there is not made.
-- Returns 1, or 0 when the round takes no updates.
if redis.call('HGET', KEYS[1], 'state') ~= 'open' then return 0 end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'away_ms', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
redis.call('PUBLISH', KEYS[1], 'away')
return 1
