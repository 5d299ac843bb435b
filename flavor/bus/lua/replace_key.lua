-- Pin another key for a client, or none, so that the next one that it announces is pinned.
-- KEYS  1 run  2 public_keys  3 to:CLIENT:admission  4 client:CLIENT:state (channel)  5 replaced
-- ARGV  1 client  2 key; '' for none  3 mark that stands for a key that only the run's records in the store have
-- Invariant: `replaced` keeps each replaced key of a client, one on a line, and none of them is pinned again. No site
-- reads `replaced`. Where Redis does not have the run, `flavor recover` would pin the key in the run's records again:
-- the mark is kept in place of that key, and `flavor recover` then leaves the key out.
-- Returns 1; 0 when the key was replaced before, and then nothing changes.
if ARGV[2] ~= '' then
  local known = redis.call('HGET', KEYS[5], ARGV[1]) or ''
  if string.find('\n' .. known, '\n' .. ARGV[2] .. '\n', 1, true) then return 0 end
end
local before = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local gone = before
if redis.call('EXISTS', KEYS[1]) == 0 then gone = ARGV[3] end
if gone ~= '' and gone ~= ARGV[2] then
  local replaced, line = redis.call('HGET', KEYS[5], ARGV[1]) or '', gone .. '\n'
  if not string.find('\n' .. replaced, '\n' .. line, 1, true) then
    redis.call('HSET', KEYS[5], ARGV[1], replaced .. line)
  end
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
redis.call('DEL', KEYS[3])
redis.call('PUBLISH', KEYS[4], '')
return 1
