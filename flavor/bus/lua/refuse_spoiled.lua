-- A part of the scripts that go on after an attempt, put before them: what was accepted of these clients counts no more.
-- `update.accepted` had forgotten their refusals before; where the update is to blame, and not its store, they are a row.
-- KEYS  from `first` on, the verdict of each client
-- ARGV  from `at` on, of each: the client, its verdict (JSON), its reason, its try, '1' where its update is to blame
local function refuse_spoiled(N, round, verdicts, refusals, first, at)
  for i = first, #KEYS do
    local client, verdict, reason, try, fault = unpack(ARGV, at, at + 4)
    redis.call('HSET', verdicts, client, verdict)
    if fault == '1' then
      redis.call('HINCRBY', refusals, client, 1 + tonumber(redis.call('HGET', round, 'forgiven:' .. client) or '0'))
    end
    redis.call('DEL', KEYS[i])
    redis.call('HSET', KEYS[i], 'accepted', '0', 'reason', reason)
    if try ~= '' then redis.call('HSET', KEYS[i], 'try', try) end
    redis.call('PUBLISH', KEYS[i], N)
    at = at + 5
  end
end
