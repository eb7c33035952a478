-- reseal: the same record or name, sealed with another key, by compare-and-set: one that was changed meanwhile stays as
-- it is. Resealing the same again after a lost reply gives the first answer again.
--
-- KEYS  1 sealed    hash    user index -> sealed record, or sealed user name
-- ARGV  1 user      user index
--       2 old       sealed bytes that were read
--       3 new       the same content of the same version, sealed anew
--
-- Answers
--   resealed
--   changed                  it is not what was read any more, or gone; nothing was written

local user, old, new = ARGV[1], ARGV[2], ARGV[3]
local stored = redis.call('HGET', KEYS[1], user)
if stored == new then return { 'resealed' } end
if stored ~= old then return { 'changed' } end
redis.call('HSET', KEYS[1], user, new)
return { 'resealed' }
