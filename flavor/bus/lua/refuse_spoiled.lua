-- A part of the scripts that go on after an attempt, put before them: what was accepted of these clients counts no more.
-- `update.accepted` had forgotten their refusals before; where the update is to blame, and not its store, they are a row.
-- An object that was changed may be the store's fault once; the same client's next one in this round is a refusal, too.
-- Else a site that changes each object that was accepted of it would have the round aggregated without end.
-- KEYS  from `first` on, the verdict of each client
-- ARGV  from `at` on, of each: the client, its verdict (JSON), its reason, its try, '1' where its update is to blame
local function refuse_spoiled(N, round, verdicts, refusals, first, at)
  for i = first, #KEYS do
    local client, verdict, reason, try, fault = unpack(ARGV, at, at + 4)
    redis.call('HSET', verdicts, client, verdict)
    local times = redis.call('HINCRBY', round, 'spoilt:' .. client, 1)
    if fault == '1' or times > 1 then
      redis.call('HINCRBY', refusals, client, 1 + tonumber(redis.call('HGET', round, 'forgiven:' .. client) or '0'))
    end
    redis.call('DEL', KEYS[i])
    redis.call('HSET', KEYS[i], 'accepted', '0', 'reason', reason)
    if try ~= '' then redis.call('HSET', KEYS[i], 'try', try) end
    redis.call('PUBLISH', KEYS[i], N)
    at = at + 5
  end
end
