-- tombstones: a page of what was taken back, as it changed since the last number that the caller has. Writes nothing.
--
-- Uses lib/tombstones.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 after     number after which to begin
--       2 count     how many users to a page
--
-- Answers
--   page, number up to which this goes, how many users have graves, then pairs: user index, graves (JSON
--                            as lib/tombstones.lua has them, '' if none decode); a page with fewer pairs than `count`
--                            is the last

load_limits()
local found = call('ZRANGEBYSCORE', OVER_NUMBERS, '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local last = #found > 0 and tonumber(found[#found]) or state.buried
local answer = { 'page', text(last), text(call('ZCARD', OVER_NUMBERS)) }
for at = 1, #found, 2 do
  answer[#answer + 1] = found[at]
  local graves = graves_of(found[at])
  answer[#answer + 1] = next(graves) ~= nil and cjson.encode(graves) or ''
end
return answer
