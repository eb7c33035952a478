-- rings: what every node reported of its keys. A node that was silent for too long is forgotten.
--
-- Uses lib/farm.lua
--
-- KEYS  1 rings     hash    node -> when it reported (ms), a blank, and its report (JSON)
--       2 audit     stream  decisions of the whole farm
--       3 counts    hash    event -> how many of them were ever written to the audit, and sizes, see lib/farm.lua
-- ARGV  1 kept      ms for which a silent node is remembered
--
-- Answers
--   rings, now ms, then triples: node, when ms, its report (JSON)

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local lost, size = has_lost(KEYS[3], 'rings', redis.call('HLEN', KEYS[1])), redis.call('HLEN', KEYS[1])
local answer = { 'rings', string.format('%.0f', now) }
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local at, said = string.match(entries[i + 1], '^(%d+) (.*)$')
  if not at or tonumber(at) + tonumber(ARGV[1]) < now then
    redis.call('HDEL', KEYS[1], entries[i])
    size = size - 1
  else
    answer[#answer + 1] = entries[i]
    answer[#answer + 1] = at
    answer[#answer + 1] = said
  end
end
if size * 2 < #entries then -- a reader that forgets nobody writes nothing
  if lost then audit_loss(KEYS[2], 'rings', '') end
  note_size(KEYS[3], 'rings', size, lost)
end
return answer
