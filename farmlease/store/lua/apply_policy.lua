-- apply_policy: replace the farm's policy, unless another administrator did meanwhile.
-- Applying the same bytes again after a lost reply gives the first answer again. The version in force may be applied
-- anew: that writes again what the farm's keys have lost. An administrator who applies one has seen which of them lost
-- members, see lib/farm.lua.
--
-- Uses lib/policy.lua
--
-- KEYS  1 policy    string  version, ' former' if leases may stand under former names, a line feed, the sealed policy
--       2 audit     stream  decisions about the whole farm
--       3 counts    hash    event -> how many of them were ever written to the audit
--       4 pools     hash    every pool there ever was -> version of the last policy that had it
-- ARGV  1 expected  version that was read, 0 if there was none that decodes
--       2 version   of the new policy, greater than that; the same, to write it again
--       3 sealed    the sealed policy
--       4 names     JSON list: its pools
--       5 node      that puts back what the store has lost, or ''
--       6 by        sealed name of the administrator, for the audit
--       7 former    '1' if leases may stand under former names of their users by this policy, else ''
--
-- Answers
--   applied
--   changed, version  of the policy that is in force instead

local new = ARGV[2] .. (ARGV[7] == '1' and ' former' or '') .. '\n' .. ARGV[3]
local stored = redis.call('GET', KEYS[1])
if stored == new then return { 'applied' } end
local version = policy_parts(stored) or '0'
if version ~= ARGV[1] then return { 'changed', version } end
redis.call('SET', KEYS[1], new)
for _, name in ipairs(cjson.decode(ARGV[4])) do redis.call('HSET', KEYS[4], name, ARGV[2]) end
if ARGV[5] == '' then redis.call('HDEL', KEYS[3], '#names', '#noted', '#nodes', '#rings') end
local event = ARGV[5] == '' and version ~= ARGV[2] and 'policy_applied' or 'policy_put_back'
redis.call('HINCRBY', KEYS[3], event, 1)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'event', event, 'user', '', 'node', ARGV[5], 'session', '',
  'detail', ARGV[2], 'by', ARGV[6])
return { 'applied' }
