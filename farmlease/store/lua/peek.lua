-- peek: is this still the store that the node knew? Writes nothing, and costs next to nothing.
--
-- KEYS  the shard's keys, as prelude.lua names them
-- ARGV  1 epoch     that the node knows; 0: none
--       2 seen      highest fence that it has seen
--       3 life      of the server
--       4 expected  ms: what the node thinks the time is; 0: it does not know
--
-- Answers
--   known
--   strange

local known = load_limits() and not estranged(tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]))
return { known and 'known' or 'strange' }
