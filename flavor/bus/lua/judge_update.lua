-- Record the verdict on one client's update, once.
-- KEYS  1 round:N:verdicts  2 log
-- ARGV  1 client  2 N  3 verdict (JSON)  4 event for the log  5 reason  6 the client's verdict channel
-- Invariant: the first verdict stands; a repeated inspection changes nothing.
-- Returns 1 when this verdict was the first, else 0.
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[3]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', 'event', ARGV[4], 'round', ARGV[2], 'client', ARGV[1], 'reason', ARGV[5])
redis.call('PUBLISH', ARGV[6], ARGV[2])
return 1
