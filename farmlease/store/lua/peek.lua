-- peek: is this still the store that the node knew? Writes nothing, and costs little.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  what the node knows, as lib/shard.lua names it
--
-- Answers
--   known
--   strange

local known = load_limits() and not is_other_store()
return { known and 'known' or 'strange' }
