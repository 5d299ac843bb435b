-- Log what a client has caused, unless it has caused too much of it in this round.
-- KEYS  1 round:N:entries  2 log
-- ARGV  1 client  2 most entries  3 what the last one adds  4 event  5 reason  6 N, or ''
-- Invariant: one client adds no more entries to the log than `caused` allows, and no state changes.
-- Returns what `caused` does.
local entry = {'event', ARGV[4], 'client', ARGV[1]}
if ARGV[6] ~= '' then entry[5], entry[6] = 'round', ARGV[6] end
return caused(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], entry, ARGV[5])
