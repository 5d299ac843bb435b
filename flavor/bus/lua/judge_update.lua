-- Record the verdict on one client's update, once, and tell that client.
-- KEYS  1 round:N:verdicts  2 log  3 round:N  4 the client's verdict of the round of its task  5 refusals
--       6 round:N:entries
--       7 run  8 the client's admission  9 round:N:measured
-- ARGV  1 client  2 N  3 verdict (JSON)  4 update.accepted, update.refused, update.blameless or update.late
--       5 reason  6 verdict (JSON) and 7 reason to record instead if the update is late
--       8 which try of the client was judged
--       9 most entries of a client in a round  10 what the last one adds
--       11 verdict (JSON) and 12 reason to record instead if the run does not admit the client
--       13 what was measured of the client (JSON), to be recorded with the time of the verdict; '' for nothing
-- Invariants:
-- - The first verdict on a try stands: a repeated inspection changes nothing.
-- - A refused update may be followed by another try while the round is open. An accepted one is the client's last in
--   it.
-- - An update is accepted only while its round is open. An update that is accepted later is recorded as late.
-- - A round that was opened again may have left the client out. Its update then gets no acceptance while the round is
--   open, unless a later opening expects the client again.
-- - `update.late` is recorded only when the round is not open: the caller may be a coordinator that was paused while
--   another one took over and opened the round again.
-- - A try that the round no longer waits for is answered, too: it is late.
-- - In an asynchronous round that is no longer open, only the coordinator refuses an update as late: other clients go
--   on, and their updates are inspected again for the next round.
-- - No update of a quarantined client is accepted. It gets no verdict until an operator pardons the client.
-- - The answer on a refusal that quarantines the client tells the client so: `quarantined`, the refusals in a row.
--   The answer on one that is not the client's fault has `blameless`, and `of_model` of the verdict.
-- - An update of a client that the run does not admit is refused, and the refusal does not count.
-- - A round that does not exist gets no verdicts: the server may have lost the run during the inspection.
-- - `refusals` counts a client's refused updates in a row. A late update does not count, and neither does one whose
--   global model is to blame (update.blameless).
-- - A verdict keeps why the update before, which the client has handed in again, was refused: `refused_before`.
-- - Each acceptance is logged. A refusal is one of the client's entries, whose number `caused` limits.
-- Returns 0 when this verdict was not recorded; 4 when it was recorded as an acceptance; else what `caused` does.
local verdict, event, reason = ARGV[3], ARGV[4], ARGV[5]
local quarantined = 0
local function is_quarantined(refused)
  if refused == 0 then return false end
  local most = tonumber(cjson.decode(redis.call('HGET', KEYS[7], 'config') or '{}').quarantine_after) or 0
  return most > 0 and refused >= most
end
local round, late = redis.call('HMGET', KEYS[3], 'state', 'left_out'), event == 'update.late'
local state, left_out = round[1], false
for _, client in ipairs(cjson.decode(round[2] or '[]')) do left_out = left_out or client == ARGV[1] end
if not state or (late and state == 'open') then return 0 end
if not late and state ~= 'open' and redis.call('HEXISTS', KEYS[3], 'since') == 1 then return 0 end
if event == 'update.accepted' and state == 'open' and left_out then return 0 end
if event == 'update.accepted' and state ~= 'open' then
  late, verdict, reason = true, ARGV[6], ARGV[7]
end
if event == 'update.accepted' and not late then
  if is_quarantined(tonumber(redis.call('HGET', KEYS[5], ARGV[1]) or '0')) then return 0 end
  if redis.call('HGET', KEYS[8], 'admitted') == '0' then
    event, verdict, reason = 'update.blameless', ARGV[11], ARGV[12]
  end
end
local blameless = not late and event == 'update.blameless'
local fault = not late and not blameless
if event ~= 'update.accepted' or late then event = 'update.refused' end
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before then
  local known = cjson.decode(before)
  if known.accepted or known.try_id == ARGV[8] or (state ~= 'open' and not late) then return 0 end
  if type(known.reason) == 'string' and known.reason ~= '' then
    verdict = '{"refused_before":' .. cjson.encode(known.reason) .. ',' .. string.sub(verdict, 2)
  end
end
redis.call('HSET', KEYS[1], ARGV[1], verdict)
if ARGV[13] ~= '' then
  local time = redis.call('TIME')
  local ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('HSET', KEYS[9], ARGV[1], '{"judged_ms":' .. ms .. ',' .. string.sub(ARGV[13], 2))
end
if event == 'update.accepted' then
  local faults = redis.call('HGET', KEYS[5], ARGV[1])
  if faults then redis.call('HSET', KEYS[3], 'forgiven:' .. ARGV[1], faults) end
  redis.call('HDEL', KEYS[5], ARGV[1])
elseif fault then
  local refused = redis.call('HINCRBY', KEYS[5], ARGV[1], 1)
  if is_quarantined(refused) then quarantined = refused end
end
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[4], 'accepted', event == 'update.accepted' and '1' or '0', 'reason', reason)
if ARGV[8] ~= '' then redis.call('HSET', KEYS[4], 'try', ARGV[8]) end
if quarantined > 0 then redis.call('HSET', KEYS[4], 'quarantined', quarantined) end
if blameless then
  redis.call('HSET', KEYS[4], 'blameless', '1')
  local cause = cjson.decode(verdict).of_model
  if cause then redis.call('HSET', KEYS[4], 'of_model', cause) end
end
redis.call('PUBLISH', KEYS[4], ARGV[2])
local entry = {'event', event, 'round', ARGV[2], 'client', ARGV[1]}
if event ~= 'update.accepted' then return caused(KEYS[6], KEYS[2], ARGV[1], ARGV[9], ARGV[10], entry, reason) end
entry[7], entry[8] = 'reason', reason
log_entry(KEYS[2], unpack(entry))
return 4
