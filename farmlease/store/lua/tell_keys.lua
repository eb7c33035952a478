-- tell_keys: a node reports which keys it can open with, which one it seals with, and which its journal still needs.
--
-- KEYS  1 rings     hash    node -> when it reported (ms), a blank, and its report (JSON)
-- ARGV  1 node      name of the node; the last report counts, of any incarnation
--       2 said      JSON
--
-- Answers
--   told, now ms

local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
return { 'told', now }
