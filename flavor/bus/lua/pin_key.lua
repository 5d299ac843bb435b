-- Pin the key that a client announces, or signs with, if none is pinned for it.
-- KEYS  1 public_keys  2 replaced
-- ARGV  1 client  2 key
-- Invariant: the first key stays pinned. A key that an operator has replaced is never pinned again, although Redis may
-- still hold what its owner announced or signed with it.
-- Returns the key that is pinned; '' when none is pinned and this key was replaced.
local pinned = redis.call('HGET', KEYS[1], ARGV[1])
if pinned then return pinned end
local replaced = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if string.find('\n' .. replaced, '\n' .. ARGV[2] .. '\n', 1, true) then return '' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]
