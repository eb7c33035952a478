-- reseal_wish: the administrator of a node's wish, sealed with another key, unless something else is wished by now.
-- Resealing the same again after a lost reply gives the first answer again.
--
-- Uses lib/node_entry.lua
--
-- KEYS  1 nodes     hash    node -> its last report, when, and what is wished of it (JSON)
-- ARGV  1 node      name of the node
--       2 old       base64: sealed bytes that were read
--       3 new       base64: the same name, sealed anew
--
-- Answers
--   resealed
--   changed

local entry = entry_of(redis.call('HGET', KEYS[1], ARGV[1]))
if not entry then return { 'changed' } end
if entry.wish.by == ARGV[3] then return { 'resealed' } end
if entry.wish.by ~= ARGV[2] then return { 'changed' } end
entry.wish.by = ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(entry))
return { 'resealed' }
