-- A part of the scripts that log what a client has caused, put before them: no client fills the log of its run.
-- After `most` entries of a client in a round one more is appended each ten minutes, as a round may be held for days.
-- `entries` has, beside each client's number, `told:CLIENT`, those beyond `most` that are in the log or that the
-- coordinator has told of, and `again:CLIENT`, the server's time in ms of its last one in the log. It goes a week after
-- the last one: what is caused in a round whose keys were pruned long ago leaves nothing for good.
-- Returns 1 when the entry was appended; 3 when it was, as the last for now of this client in this round, and says so;
-- 2 when it was only counted.
local function caused(entries, log, client, most, last, entry, reason)
  local number = redis.call('HINCRBY', entries, client, 1)
  redis.call('EXPIRE', entries, 7 * 24 * 3600)
  local over = number - tonumber(most)
  if over >= 0 then
    local time, again = redis.call('TIME'), 'again:' .. client
    local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
    if over > 0 and now_ms < tonumber(redis.call('HGET', entries, again) or 0) + 600 * 1000 then return 2 end
    redis.call('HSET', entries, again, string.format('%.0f', now_ms))
    if over > 0 then redis.call('HINCRBY', entries, 'told:' .. client, 1) end
    reason = reason .. last
  end
  entry[#entry + 1], entry[#entry + 2] = 'reason', reason
  log_entry(log, unpack(entry))
  return over >= 0 and 3 or 1
end
