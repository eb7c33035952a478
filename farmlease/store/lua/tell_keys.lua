-- tell_keys: a node reports which keys it can open with, which one it seals with, and which its journal still needs.
--
-- Uses lib/farm.lua
--
-- KEYS  1 rings     hash    node -> when it reported (ms), a blank, and its report (JSON)
--       2 audit     stream  decisions of the whole farm
--       3 counts    hash    event -> how many of them were ever written to the audit, and sizes, see lib/farm.lua
-- ARGV  1 node      name of the node; the last report counts, of any incarnation
--       2 said      JSON
--
-- Answers
--   told, now ms

local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local lost = has_lost(KEYS[3], 'rings', redis.call('HLEN', KEYS[1]))
redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
if lost then audit_loss(KEYS[2], 'rings', ARGV[1]) end
note_size(KEYS[3], 'rings', redis.call('HLEN', KEYS[1]), lost)
return { 'told', now }
