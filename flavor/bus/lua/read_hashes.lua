-- Read known fields of hashes that other parties write, and nothing that is larger than it can be.
-- KEYS  the hashes, and then other keys that are only looked for
-- ARGV  1 most bytes of a field  2 number of hashes  3... names of fields
-- A hash that as a whole is no larger than one field may be is read without a look at each of its fields.
-- Invariant: the script writes nothing, and returns no more than the named fields, each within the limit. No client can
-- make the call fail by what it writes there.
-- Returns for each hash: nothing there: 0; no hash: 1; a field that is too large: its name; else the fields' values;
--         and for each other key the milliseconds until it expires, -1 for one that never does, 0 for none.
local MOST_FIELDS = 64
local most, found, names = tonumber(ARGV[1]), {}, {unpack(ARGV, 3)}
for i, key in ipairs(KEYS) do
  local fields = i <= tonumber(ARGV[2]) and redis.pcall('HLEN', key)
  if not fields then
    local left = redis.call('PTTL', key)
    found[i] = left == -2 and 0 or left == 0 and 1 or left
  elseif fields == 0 then
    found[i] = 0
  elseif type(fields) ~= 'number' then  -- an error: no hash
    found[i] = 1
  else
    local size = most + 1
    if fields <= MOST_FIELDS then  -- of a larger hash, the size takes long to find out
      size = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', '0')
    end
    local values
    if type(size) ~= 'number' or size > most then  -- some field may be too large
      for _, name in ipairs(names) do
        if redis.call('HSTRLEN', key, name) > most then
          values = name
          break
        end
      end
    end
    values = values or redis.call('HMGET', key, unpack(names))
    found[i] = values
  end
end
return found
