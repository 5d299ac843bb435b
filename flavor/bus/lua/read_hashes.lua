-- Read known fields of hashes that other parties write, and nothing that is larger than it can be.
-- KEYS  the hashes, and then other keys that are only looked for
-- ARGV  1 most bytes of a field  2 number of hashes  3... names of fields
-- Returns for each hash: nothing there: 0; no hash: 1; a field that is too large: its name; else the fields' values;
--         and for each other key whether it is there (1 or 0).
local most, found = tonumber(ARGV[1]), {}
for i, key in ipairs(KEYS) do
  local kind = i <= tonumber(ARGV[2]) and redis.call('TYPE', key)['ok']
  if not kind then
    found[i] = redis.call('EXISTS', key)
  elseif kind == 'none' then
    found[i] = 0
  elseif kind ~= 'hash' then
    found[i] = 1
  else
    local values = {}
    for j = 3, #ARGV do
      local size = redis.call('HSTRLEN', key, ARGV[j])
      if size > most then
        values = ARGV[j]
        break
      end
      values[j - 2] = size > 0 and redis.call('HGET', key, ARGV[j])
    end
    found[i] = values
  end
end
return found
