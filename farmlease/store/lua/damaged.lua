-- damaged: a page of what was set aside in a pool. Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 cursor    '0' to begin, then what the page before answered
--       2 count     about how many to a page
--
-- Answers
--   page, next cursor ('0': the last one), then pairs: what it was, how many bytes

local found = call('HSCAN', DAMAGED, ARGV[1], 'COUNT', ARGV[2])
local answer = { 'page', found[1] }
for at = 1, #found[2], 2 do
  answer[#answer + 1] = found[2][at]
  answer[#answer + 1] = text(#found[2][at + 1])
end
return answer
