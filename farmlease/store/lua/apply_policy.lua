-- apply_policy: replace the farm's policy, unless somebody else did meanwhile.
-- Applying the same bytes again after a lost reply gives the first answer again.
--
-- KEYS  1 policy    string  version, a line feed, the sealed policy
-- ARGV  1 expected  version that was read, 0 if there was none
--       2 version   of the new policy, greater than that
--       3 sealed    the sealed policy
--
-- Answers
--   applied
--   changed, version  of the policy that is in force instead

local new = ARGV[2] .. '\n' .. ARGV[3]
local stored = redis.call('GET', KEYS[1])
if stored == new then return { 'applied' } end
local version = stored and string.match(stored, '^%d+') or '0'
if version ~= ARGV[1] then return { 'changed', version } end
redis.call('SET', KEYS[1], new)
return { 'applied' }
