-- read_policy: the farm's policy document.
--
-- Uses lib/policy.lua
--
-- KEYS  1 policy    string  version, ' former' if leases may stand under former names, a line feed, the sealed policy
-- ARGV  none
--
-- Answers
--   policy, version, sealed policy, now ms, '1' if leases may stand under former names of their users
--   none, now ms    none was ever applied, or it was lost, or it does not decode

local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local stored = redis.call('GET', KEYS[1])
local version, former, sealed = policy_parts(stored)
if not version then return { 'none', now } end
return { 'policy', version, sealed, now, former ~= '' and '1' or '' }
