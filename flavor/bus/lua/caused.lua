-- A part of the scripts that log what a client has caused, put before them: no client fills the log of its run.
-- Returns 1 when the entry was appended; 3 when it is the last of this client in this round, and says so; 2 when it was
-- only counted.
local function caused(entries, log, client, most, last, entry, reason)
  local number = redis.call('HINCRBY', entries, client, 1)
  if number > tonumber(most) then return 2 end
  local is_last = number == tonumber(most)
  entry[#entry + 1], entry[#entry + 2] = 'reason', reason .. (is_last and last or '')
  redis.call('XADD', log, 'MAXLEN', '~', '100000', '*', unpack(entry))
  return is_last and 3 or 1
end
