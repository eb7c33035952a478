-- pools: every pool there ever was. Writes nothing.
--
-- KEYS  1 pools     hash    name of a pool -> version of the last policy that had it
-- ARGV  none
--
-- Answers
--   pools, then each name

local answer = { 'pools' }
for at, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if at <= 10000 then answer[#answer + 1] = name end
end
return answer
