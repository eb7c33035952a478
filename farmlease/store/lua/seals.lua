-- seals: a page of what is sealed in a pool: the first bytes of each, which name its key. Writes nothing.
-- What is there during the whole walk is listed at least once.
--
-- KEYS  the shard's keys, as prelude.lua names them
-- ARGV  1 kind      records or names
--       2 cursor    '0' to begin, then what the page before answered
--       3 count     about how many to a page
--
-- Answers
--   page, next cursor ('0': the last one), then pairs: user index, first 33 bytes

local HEAD = 33 -- header, nonce and tag: what is shorter is not sealed

local set = ARGV[1] == 'names' and NAMES or RECORDS
local found = call('HSCAN', set, ARGV[2], 'COUNT', ARGV[3])
local answer, entries = { 'page', found[1] }, found[2]
for i = 1, #entries, 2 do
  answer[#answer + 1] = entries[i]
  answer[#answer + 1] = string.sub(entries[i + 1], 1, HEAD)
end
return answer
