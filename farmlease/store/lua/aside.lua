-- aside: one thing that was set aside in a pool, as it was found. Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 field     what it is and whose, as damaged.lua lists it
--
-- Answers
--   aside, its bytes; '' if there is no such thing

local kept = call('HGET', DAMAGED, ARGV[1])
return { 'aside', kept and string.match(kept, '^%d* (.*)$') or '' }
