-- End a run: finished, failed or stopped.
-- KEYS  1 run  2 log  3 round:N of the current round  4 coordinator
-- ARGV  1 state  2 reason, for everybody  3 N  4 coordinator's token, or '' for an operator, who may always
--       5 reason, for the operator: the log has it; no site reads that
-- Invariant: an ended run stays as it ended until `flavor resume`, and has no round that is open.
-- Returns {'ok', ''} or an error: lease, state (ended, or another round is the current one).
if ARGV[4] ~= '' and redis.call('GET', KEYS[4]) ~= ARGV[4] then return {'lease', ''} end
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'waiting' and state ~= 'running' then return {'state', tostring(state)} end
if redis.call('HGET', KEYS[1], 'round') ~= ARGV[3] then return {'state', 'in another round'} end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'reason', ARGV[2],
           'ended_ms', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
local round = redis.call('HGET', KEYS[3], 'state')
if round == 'open' or round == 'aggregating' then
  redis.call('HSET', KEYS[3], 'state', 'failed', 'reason', ARGV[5])
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '100000', '*', 'event', 'run.' .. ARGV[1], 'reason', ARGV[5])
redis.call('PUBLISH', KEYS[1], ARGV[1])
return {'ok', ''}
