-- roster: every node that ever reported and was not forgotten. Writes nothing.
--
-- KEYS  1 nodes     hash    node -> its last report, when, and what is wished of it (JSON)
-- ARGV  none
--
-- Answers
--   roster, now ms, then pairs: node, what is known of it (JSON)

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local all = redis.call('HGETALL', KEYS[1])
local answer = { 'roster', string.format('%.0f', now) }
for i = 1, #all do answer[i + 2] = all[i] end
return answer
