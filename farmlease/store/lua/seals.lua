-- seals: a page of what is sealed of users: the first bytes of each, which name its key. Writes nothing.
-- A seal that is there during the whole walk is listed at least once.
--
-- KEYS  1 sealed    hash    user index -> sealed record, or sealed user name
-- ARGV  1 cursor    '0' to begin, then what the page before answered
--       2 count     about how many to a page
--
-- Answers
--   page, next cursor ('0': the last one), then pairs: user index, first 33 bytes

local HEAD = 33 -- header, nonce and tag: what is shorter is not sealed

local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local answer, entries = { 'page', found[1] }, found[2]
for i = 1, #entries, 2 do
  answer[#answer + 1] = entries[i]
  answer[#answer + 1] = string.sub(entries[i + 1], 1, HEAD)
end
return answer
