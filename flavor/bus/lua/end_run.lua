-- End a run: finished, failed or stopped.
-- KEYS  1 run  2 log  3 round:N of the current round  4 coordinator  5 round:N:verdicts
-- ARGV  1 state  2 reason, which every site can read  3 N
--       4 coordinator's token, or '' for an operator, who may always end a run
--       5 reason for the operator, in the log, which no site reads
--       6 state and attempt of the round that the caller has decided on, with a space between; '' for any
--       7 the clients whose updates were accepted in it then (JSON)
--       8 '1' where the run has reached its goal, so that fewer rounds than planned are all that it is to have
-- Invariants: an ended run stays as it ended until `flavor resume`, and has no round that is open. It does not end
-- where an update was accepted, or an attempt was committed, after the caller had decided.
-- Returns {'ok', ''} or an error: lease, state (ended, or another round is the current one, or it went on).
if ARGV[4] ~= '' and redis.call('GET', KEYS[4]) ~= ARGV[4] then return {'lease', ''} end
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'waiting' and state ~= 'running' then return {'state', tostring(state)} end
if redis.call('HGET', KEYS[1], 'round') ~= ARGV[3] then return {'state', 'in another round'} end
if ARGV[6] ~= '' then
  local round = redis.call('HMGET', KEYS[3], 'state', 'attempt', 'expected')
  local seen = tostring(round[1]) .. ' ' .. tostring(round[2])
  if seen ~= ARGV[6] then return {'state', seen .. ', and was decided on as ' .. ARGV[6]} end
  if round[1] == 'open' then
    local known = {}
    for _, client in ipairs(cjson.decode(ARGV[7])) do known[client] = true end
    for _, client in ipairs(cjson.decode(round[3])) do
      local verdict = not known[client] and redis.call('HGET', KEYS[5], client)
      if verdict and cjson.decode(verdict).accepted then return {'state', 'decided without ' .. client .. ', which is accepted'} end
    end
  end
end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'reason', ARGV[2],
           'ended_ms', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
if ARGV[8] == '1' then redis.call('HSET', KEYS[1], 'met', '1') end
local round = redis.call('HGET', KEYS[3], 'state')
if round == 'open' or round == 'aggregating' then
  redis.call('HSET', KEYS[3], 'state', 'failed', 'reason', ARGV[5])
end
log_entry(KEYS[2], 'event', 'run.' .. ARGV[1], 'reason', ARGV[5])
redis.call('PUBLISH', KEYS[1], ARGV[1])
return {'ok', ''}
