-- rings: what every node reported of its keys. A node that was silent for too long is forgotten.
--
-- KEYS  1 rings     hash    node -> when it reported (ms), a blank, and its report (JSON)
-- ARGV  1 kept      ms for which a silent node is remembered
--
-- Answers
--   rings, now ms, then triples: node, when ms, its report (JSON)

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local answer = { 'rings', string.format('%.0f', now) }
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local at, said = string.match(entries[i + 1], '^(%d+) (.*)$')
  if not at or tonumber(at) + tonumber(ARGV[1]) < now then
    redis.call('HDEL', KEYS[1], entries[i])
  else
    answer[#answer + 1] = entries[i]
    answer[#answer + 1] = at
    answer[#answer + 1] = said
  end
end
return answer
