-- Pin another key for a client, or none, so that the next one that it announces is pinned.
-- KEYS  1 run  2 public_keys  3 to:CLIENT:admission  4 client:CLIENT:state (channel)
-- ARGV  1 client  2 key; '' for none
-- Invariant: a key that is replaced in a run that is there stays in the run's `replaced`, a line `CLIENT KEY` each.
-- Returns the key that was pinned; '' when there was none.
local before = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if before ~= '' and before ~= ARGV[2] and redis.call('EXISTS', KEYS[1]) == 1 then
  local replaced, line = redis.call('HGET', KEYS[1], 'replaced') or '', ARGV[1] .. ' ' .. before .. '\n'
  if not string.find('\n' .. replaced, '\n' .. line, 1, true) then
    redis.call('HSET', KEYS[1], 'replaced', replaced .. line)
  end
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
redis.call('DEL', KEYS[3])
redis.call('PUBLISH', KEYS[4], '')
return before
