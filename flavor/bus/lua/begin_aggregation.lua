-- Fix who contributes to a round and start an attempt to aggregate it.
-- KEYS  1 coordinator  2 run  3 round:N  4 log  5 round:N:verdicts  6 refusals
--       then the verdict of each client whose update was found spoiled
-- ARGV  1 coordinator's token  2 N  3 attempt (1, 2, ...)  4 contributors (JSON)  5 reason  then what refuse_spoiled
--       takes
-- Invariants: each accepted update of an expected client counts. If one was accepted after the caller had decided,
-- nothing changes, and the caller looks again. After the first attempt the contributors change in one way only: those
-- whose updates a worker found spoiled (fail_attempt) are left out, and are told so.
-- Returns {'ok', ''} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local run = redis.call('HGET', KEYS[2], 'state')
if run ~= 'running' then return {'state', tostring(run)} end
local round = redis.call('HMGET', KEYS[3], 'state', 'attempt', 'expected')
local attempt = tonumber(ARGV[3])
local first = round[1] == 'open' and attempt == 1
local again = round[1] == 'aggregating' and tonumber(round[2]) == attempt - 1
if not (first or again) then return {'state', tostring(round[1])} end
if first then
  local counts = {}
  for _, client in ipairs(cjson.decode(ARGV[4])) do counts[client] = true end
  for _, client in ipairs(cjson.decode(round[3])) do
    if not counts[client] then
      local verdict = redis.call('HGET', KEYS[5], client)
      if verdict and cjson.decode(verdict).accepted then return {'state', 'decided without ' .. client .. ', which is accepted'} end
    end
  end
end
redis.call('HSET', KEYS[3], 'state', 'aggregating', 'attempt', ARGV[3])
if first then
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[3], 'aggregating_ms', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
end
if first or redis.call('HEXISTS', KEYS[3], 'spoiled') == 1 then redis.call('HSET', KEYS[3], 'contributors', ARGV[4]) end
-- An attempt that ended for a reason that passes by itself, or because of a site's update, is not counted.
if redis.call('HEXISTS', KEYS[3], 'passing_ms') + redis.call('HEXISTS', KEYS[3], 'spoiled') > 0 then
  redis.call('HINCRBY', KEYS[3], 'waits', 1)
end
redis.call('HDEL', KEYS[3], 'lease', 'lease_ms', 'error', 'spoiled', 'unfit', 'blameless', 'passing_ms', 'hopeless')
refuse_spoiled(ARGV[2], KEYS[3], KEYS[5], KEYS[6], 7, 6)
log_entry(KEYS[4], 'event', 'round.aggregating', 'round', ARGV[2], 'reason', ARGV[5])
return {'ok', ''}
