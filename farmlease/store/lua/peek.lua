-- peek: is this still the store that the node knew? Writes nothing, and costs next to nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 epoch     that the node knows; 0: none
--       2 seen      highest fence that it has seen
--       3 life      of the server
--       4 expected  ms: what the node thinks the time is; 0: it does not know
--       5 line      of counts that this belongs to
--
-- Answers
--   known
--   strange

local caller = { epoch = tonumber(ARGV[1]), seen = tonumber(ARGV[2]), life = ARGV[3],
  expected = tonumber(ARGV[4]), line = tonumber(ARGV[5]) }

local known = load_limits() and not estranged(caller)
return { known and 'known' or 'strange' }
