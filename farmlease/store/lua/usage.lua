-- usage: a page of how a pool's seats were used, hour by hour, the hour under way last. Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 start     ms: the first hour that matters; the one counted before it comes first, for what was held then
--       2 passed    how many to pass over, of those from then on
--       3 count     how many at most; fewer are the last page
--
-- Answers
--   page, now ms, how many of those that are over it has, then tallies as lib/shard.lua has them

if not load_limits() then return { 'page', text(now), '0' } end
local start, passed, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local found = call('ZRANGEBYSCORE', USAGE, start, '+inf', 'LIMIT', passed, count)
local answer = { 'page', text(now), text(#found) }
if passed == '0' then
  answer[4] = call('ZREVRANGEBYSCORE', USAGE, '(' .. start, '-inf', 'LIMIT', 0, 1)[1]
end
for _, words in ipairs(found) do answer[#answer + 1] = words end
if #found == count then return answer end
if state.tally ~= '' then open_tally() end
for _, hour in ipairs(finished) do answer[#answer + 1] = tally_text(hour) end
if tally then answer[#answer + 1] = tally_text(tally) end
return answer
