-- A part of the scripts that go on after an attempt, put before them: it refuses updates that were accepted and then
-- found spoiled. If the update is to blame, the refusal counts, together with the refusals in a row that the acceptance
-- had cleared. If the object was changed, the store may be to blame: the client's first such refusal in this round does
-- not count, and each later one does. Without that count, a site that changes each of its accepted objects would have
-- the round aggregated again without end. Where the global model that the update was trained from is gone, the refusal
-- never counts.
-- KEYS  from `first` on, the verdict of each client
-- ARGV  from `at` on, of each: the client, its verdict (JSON), its reason, its try, '1' where its update is to blame,
--       'blameless' where the site is not at fault
local function refuse_spoiled(N, round, verdicts, refusals, first, at)
  for i = first, #KEYS do
    local client, verdict, reason, try, fault = unpack(ARGV, at, at + 4)
    redis.call('HSET', verdicts, client, verdict)
    local times = fault == 'blameless' and 0 or redis.call('HINCRBY', round, 'spoilt:' .. client, 1)
    if fault == '1' or times > 1 then
      redis.call('HINCRBY', refusals, client, 1 + tonumber(redis.call('HGET', round, 'forgiven:' .. client) or '0'))
    end
    redis.call('DEL', KEYS[i])
    redis.call('HSET', KEYS[i], 'accepted', '0', 'reason', reason)
    if try ~= '' then redis.call('HSET', KEYS[i], 'try', try) end
    if fault == 'blameless' then redis.call('HSET', KEYS[i], 'blameless', '1') end
    redis.call('PUBLISH', KEYS[i], N)
    at = at + 5
  end
end
