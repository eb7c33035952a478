-- barred: a page of the users whom a revocation keeps out. Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 after     how many to pass over
--       2 count     how many to a page
--
-- Answers
--   page, then pairs: user index, sealed name or ''

load_limits()
local answer = { 'page' }
local found = call('ZRANGEBYSCORE', BARRED, '(' .. text(now), '+inf', 'LIMIT', ARGV[1], ARGV[2])
for _, user in ipairs(found) do
  answer[#answer + 1] = user
  answer[#answer + 1] = call('HGET', NAMES, user) or ''
end
return answer
