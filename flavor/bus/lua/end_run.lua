-- End a run: finished, failed or stopped.
-- KEYS  1 run  2 log  3 round:N of the current round
-- ARGV  1 state  2 reason
-- Invariant: an ended run stays as it ended.
-- Returns {'ok', ''} or an error: state.
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'waiting' and state ~= 'running' then return {'state', tostring(state)} end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'reason', ARGV[2],
           'ended_ms', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
local round = redis.call('HGET', KEYS[3], 'state')
if round == 'open' or round == 'aggregating' then
  redis.call('HSET', KEYS[3], 'state', 'failed', 'reason', ARGV[2])
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '100000', '*', 'event', 'run.' .. ARGV[1], 'reason', ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[1])
return {'ok', ''}
