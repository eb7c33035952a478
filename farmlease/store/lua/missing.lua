-- missing: what does a pool lack? Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  none
--
-- Answers
--   missing, words, see lib/epoch.lua ('' if nothing), '1' while the pool is being recovered

local words = load_limits() and missing() or ''
if words == '' then words = lost_keys() end
return { 'missing', words, is_recovering() and '1' or '0' }
