-- The object whose structure the updates of a first round must have: the first that was claimed.
-- KEYS  1 round:N
-- ARGV  1 path, digest and size
-- Invariant: a round that is not there is not made.
-- Returns {'ok', path, digest and size} or an error: state.
if redis.call('HEXISTS', KEYS[1], 'state') == 0 then return {'state', 'not there'} end
redis.call('HSETNX', KEYS[1], 'reference', ARGV[1])
return {'ok', redis.call('HGET', KEYS[1], 'reference')}
