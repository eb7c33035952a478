-- reseal: the same record or name, sealed with another key, by compare-and-set: one that was changed meanwhile stays as
-- it is. Resealing the same again after a lost reply gives the first answer again.
--
-- KEYS  the shard's keys, as prelude.lua names them
-- ARGV  1 kind      records or names
--       2 user      user index
--       3 old       sealed bytes that were read
--       4 new       the same content of the same version, sealed anew
--
-- Answers
--   resealed
--   changed                  it is not what was read any more, or gone; nothing was written

local set, user, old, new = ARGV[1] == 'names' and NAMES or RECORDS, ARGV[2], ARGV[3], ARGV[4]
local stored = call('HGET', set, user)
if stored == new then return { 'resealed' } end
if stored ~= old then return { 'changed' } end
call('HSET', set, user, new)
return { 'resealed' }
