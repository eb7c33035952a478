-- tell_keys: a node says which keys it can open with, which one it seals with, and which ones its journal still needs.
--
-- KEYS  1 rings     hash    node -> when it said so (ms), a blank, and what it said (JSON)
-- ARGV  1 node      name of the node; of its lives the last word counts
--       2 said      JSON
--
-- Answers
--   told, now ms

local clock = redis.call('TIME')
local now = string.format('%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
return { 'told', now }
