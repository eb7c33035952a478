-- drain: an administrator wishes that a node take no new users, or takes the wish back. The node reads it with its
-- next report. Repeating a wish changes nothing.
--
-- Uses lib/node_entry.lua
--
-- KEYS  1 nodes     hash    node -> its last report, when, and what is wished of it (JSON)
--       2 audit     stream  decisions of the whole farm
--       3 counts    hash    event -> how many of them were ever written to the audit
-- ARGV  1 node      name of the node
--       2 wish      drain or undrain
--       3 by        sealed name of the administrator, for the audit
--       4 wisher    the same in base64, as the wish keeps it
--
-- Answers
--   wished          from now on
--   already         it was wished before
--   unknown         no such node ever reported, or it was silent for so long that it was forgotten, or what is there
--                   does not decode: its next report writes it anew

local node, draining = ARGV[1], ARGV[2] == 'drain'
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local entry = entry_of(redis.call('HGET', KEYS[1], node))
if not entry then return { 'unknown' } end
if entry.wish.draining == draining then return { 'already' } end
entry.wish = { version = math.max(entry.wish.version + 1, now), draining = draining, at = now, by = ARGV[4] }
redis.call('HSET', KEYS[1], node, cjson.encode(entry))
local event = draining and 'drained' or 'undrained'
redis.call('HINCRBY', KEYS[3], event, 1)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'event', event, 'user', '', 'node', node, 'session', '',
  'detail', '', 'by', ARGV[3])
return { 'wished' }
