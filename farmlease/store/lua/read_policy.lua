-- read_policy: the farm's policy document.
--
-- KEYS  1 policy    string  version, a line feed, the sealed policy
-- ARGV  none
--
-- Answers
--   policy, version, sealed policy, now ms
--   none, now ms

local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local stored = redis.call('GET', KEYS[1])
if not stored then return { 'none', now } end
local line = string.find(stored, '\n', 1, true)
return { 'policy', string.sub(stored, 1, line - 1), string.sub(stored, line + 1), now }
