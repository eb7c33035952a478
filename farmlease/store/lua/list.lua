-- list: a page of the pool's leases as they stand now, sessions of dead nodes taken off. Writes nothing.
-- A lease that exists during the whole walk is listed at least once; one that comes or goes meanwhile may be.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 cursor    '0' to begin, then what the page before answered
--       2 count     about how many leases to a page
--
-- Answers
--   page, next cursor ('0': the last one), now ms, then quadruples: user index, document (JSON),
--   expires ms or '' while sessions keep it, sealed name

local found = call('HSCAN', LEASES, ARGV[1], 'COUNT', ARGV[2])
local answer = { 'page', found[1], text(now) }
if not load_limits() then return answer end
local entries = found[2]
for i = 1, #entries, 2 do
  local user = entries[i]
  local lease, deadline = settled_lease(user)
  if lease then
    answer[#answer + 1] = user
    answer[#answer + 1] = cjson.encode(lease)
    answer[#answer + 1] = text_or_none(deadline)
    answer[#answer + 1] = call('HGET', NAMES, user) or ''
  end
end
return answer
