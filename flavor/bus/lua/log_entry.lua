-- A part of the scripts that write to the run's log, put before them.
-- LOG_LENGTH stands before it: the entries that the log keeps, about. Each other argument is a field or its value.
local function log_entry(log, ...)
  return redis.call('XADD', log, 'MAXLEN', '~', LOG_LENGTH, '*', ...)
end
