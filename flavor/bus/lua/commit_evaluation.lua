-- Close an evaluation with its merged information, and tell each site what became of its result.
-- KEYS  1 round:N:evaluation:K  2 log  3 evaluating  4 evaluated  5 round:N:evaluation:K:verdicts  6 run
--       7 reported  8 failing
--       9... of each expected site: its verdict, its task, its result, its evaluations
-- ARGV  1 N  2 K  3 attempt  4 reason  5 summary (JSON)  6 number of fields of the evaluation
--       7 best_round of the run, on which 9 was decided  8 reason of a new best model, '' for none
--       9 fields of the run (JSON)
--       10 field, value ... of what sites have reported by now (JSON)
--       then field, value ... of the evaluation
--       then, of each expected site in the order of KEYS: site, verdict (JSON), accepted (1 or 0), reason
-- Invariant: an evaluation is closed once, by its current attempt: two workers with the same attempt have judged the
-- same results, or the first one counts.
-- Invariant: the best model so far is replaced only by a better one: 9 was decided on the best that the run has now.
-- Returns {'ok', closed_ms} or an error: state.
local evaluation = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if evaluation[1] ~= 'merging' or evaluation[2] ~= ARGV[3] then
  return {'state', tostring(evaluation[1]) .. ', attempt ' .. tostring(evaluation[2])}
end
if (redis.call('HGET', KEYS[6], 'best_round') or '') ~= ARGV[7] then return {'state', 'judged beside another model'} end
local now = redis.call('TIME')
local ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
local split = 10 + tonumber(ARGV[6])
redis.call('HSET', KEYS[1], 'state', 'closed', 'closed_ms', ms, 'reason', ARGV[4], unpack(ARGV, 11, split))
redis.call('HDEL', KEYS[8], ARGV[2])
for i = 9, #KEYS, 4 do
  local at = split + (i - 9)
  redis.call('HSET', KEYS[5], ARGV[at + 1], ARGV[at + 2])
  redis.call('HSET', KEYS[i], 'round', ARGV[1], 'number', ARGV[2], 'accepted', ARGV[at + 3], 'reason', ARGV[at + 4])
  redis.call('PUBLISH', KEYS[i], ARGV[1])
  redis.call('DEL', KEYS[i + 1], KEYS[i + 2])
  redis.call('HDEL', KEYS[i + 3], ARGV[1] .. ' ' .. ARGV[2])
  redis.call('PUBLISH', KEYS[i + 3], '')
end
local reported = cjson.decode(ARGV[10])
for i = 1, #reported, 2 do redis.call('HSET', KEYS[7], reported[i], reported[i + 1]) end
redis.call('RPUSH', KEYS[4], '{"closed_ms":' .. ms .. ',' .. string.sub(ARGV[5], 2))
redis.call('HDEL', KEYS[3], ARGV[1] .. ' ' .. ARGV[2])
log_entry(KEYS[2], 'event', 'evaluation.closed', 'round', ARGV[1], 'evaluation', ARGV[2], 'reason', ARGV[4])
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[6], unpack(cjson.decode(ARGV[9])))
  log_entry(KEYS[2], 'event', 'run.best', 'round', ARGV[1], 'reason', ARGV[8])
end
redis.call('PUBLISH', KEYS[1], 'closed')
return {'ok', ms}
