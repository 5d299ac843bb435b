-- Close a round with its global model.
-- KEYS  1 run  2 round:N  3 log  4 closed
-- ARGV  1 N  2 attempt  3 worker's token  4 reason  5 summary of the round (JSON), '' for none
--       6 number of fields of the round  then field, value ... of the round, then field, value ... of the run
-- The round's notes (JSON) are in the log before anybody can end the run.
-- Invariant: each round commits exactly once, and only by the worker that holds its current attempt.
-- Returns {'ok', closed_ms} or an error: state, lease.
local run = redis.call('HMGET', KEYS[1], 'state', 'round')
if run[1] ~= 'running' or run[2] ~= ARGV[1] then return {'state', tostring(run[1])} end
local round = redis.call('HMGET', KEYS[2], 'state', 'attempt', 'lease')
if round[1] ~= 'aggregating' or round[2] ~= ARGV[2] then
  return {'state', tostring(round[1]) .. ', attempt ' .. tostring(round[2])}
end
if round[3] ~= ARGV[3] then return {'lease', tostring(round[3])} end
local now = redis.call('TIME')
local ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
local split = 6 + tonumber(ARGV[6])
redis.call('HSET', KEYS[2], 'state', 'closed', 'closed_ms', ms, 'reason', ARGV[4], unpack(ARGV, 7, split))
redis.call('HSET', KEYS[1], unpack(ARGV, split + 1))
if ARGV[5] ~= '' then redis.call('RPUSH', KEYS[4], '{"closed_ms":' .. ms .. ',' .. string.sub(ARGV[5], 2)) end
log_entry(KEYS[3], 'event', 'round.closed', 'round', ARGV[1], 'reason', ARGV[4])
for _, note in ipairs(cjson.decode(redis.call('HGET', KEYS[2], 'notes') or '[]')) do
  log_entry(KEYS[3], 'event', 'round.note', 'round', ARGV[1], 'reason', note)
end
redis.call('PUBLISH', KEYS[2], 'closed')
return {'ok', ms}
