-- read_policy: the farm's policy document.
--
-- KEYS  1 policy    string  version, ' former' if leases may stand under former names, a line feed, the sealed policy
-- ARGV  none
--
-- Answers
--   policy, version, sealed policy, now ms, '1' if leases may stand under former names of their users
--   none, now ms

local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local stored = redis.call('GET', KEYS[1])
if not stored then return { 'none', now } end
local version, former, sealed = string.match(stored, '^(%d+)([^\n]*)\n(.*)$')
return { 'policy', version, sealed, now, former ~= '' and '1' or '' }
