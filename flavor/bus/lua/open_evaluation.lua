-- Open an evaluation of the newest model, or of a named one, and give each expected site its task.
-- KEYS  1 coordinator, or evaluator  2 run  3 round:N:evaluation:K  4 log  5 evaluating
--       6 round:N:evaluation:K:verdicts
--       7 asked  8... of each expected site: its task, its result, its evaluations
-- ARGV  1 token of that lease  2 N  3 K  4 timeout in ms  5 expected sites (JSON)  6 sites without an evaluator (JSON)
--       7 reason
--       8 fields of a model (JSON) that somebody wants judged, also once the run has ended; '' for the run's own
--       9 which model it is (JSON), which no site is told; '' for that of round N, or one from outside
--       10 '1' where somebody asks for it, '' for an evaluation of the run's own
--       11 sites with an evaluator that are not asked because they train on (JSON); '' for none
-- Invariants: an evaluation is opened once, or anew after resume_run.lua has removed it. The coordinator's own is of
-- the run's current global model, which round N has made: it is read here and not taken from a caller that may have
-- read it earlier. An evaluation begins without results: keys of one of this number, written to a server that had lost
-- the run, are deleted.
-- Returns {'ok', opened_ms} or an error: lease, state.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lease', ''} end
local run = redis.call('HMGET', KEYS[2], 'state', 'round', 'global_path')
if not run[1] then return {'state', 'gone'} end
if ARGV[8] == '' and run[1] ~= 'running' then return {'state', tostring(run[1])} end
if ARGV[8] == '' and (run[2] ~= ARGV[2] or not run[3]) then return {'state', 'in round ' .. tostring(run[2])} end
local before = redis.call('HGET', KEYS[3], 'state')
if before then return {'state', before} end
local now = redis.call('TIME')
local opened = now[1] * 1000 + math.floor(now[2] / 1000)
local fields = {'opened_ms', string.format('%.0f', opened), 'deadline_ms', string.format('%.0f', opened + tonumber(ARGV[4]))}
for _, text in ipairs(ARGV[8] == '' and {} or cjson.decode(ARGV[8])) do fields[#fields + 1] = text end
local names = {'global_path', 'global_digest', 'global_size', 'global_seal', 'info_path', 'info_digest', 'format'}
local values = redis.call('HMGET', KEYS[2], unpack(names))
for i, name in ipairs(names) do
  if ARGV[8] == '' and values[i] then
    fields[#fields + 1] = name
    fields[#fields + 1] = values[i]
  end
end
redis.call('DEL', KEYS[6])
redis.call('HSET', KEYS[3], 'state', 'open', 'expected', ARGV[5], 'skipped', ARGV[6], 'attempt', '0', 'reason', ARGV[7],
           unpack(fields))
if ARGV[9] ~= '' then redis.call('HSET', KEYS[3], 'subject', ARGV[9]) end
if ARGV[11] ~= '' then redis.call('HSET', KEYS[3], 'training', ARGV[11]) end
local name, ms = ARGV[2] .. ' ' .. ARGV[3], string.format('%.0f', opened)
redis.call('HSET', KEYS[5], name, ms)
if ARGV[10] == '1' then redis.call('HSET', KEYS[7], name, ms, ARGV[2], ARGV[3]) end
for i = 8, #KEYS, 3 do
  redis.call('DEL', KEYS[i], KEYS[i + 1])
  redis.call('HSET', KEYS[i], unpack(fields))
  redis.call('HSET', KEYS[i + 2], name, ms)
  redis.call('PUBLISH', KEYS[i + 2], ms)
end
log_entry(KEYS[4], 'event', 'evaluation.opened', 'round', ARGV[2], 'evaluation', ARGV[3], 'reason', ARGV[7])
redis.call('PUBLISH', KEYS[3], 'open')
return {'ok', ms}
