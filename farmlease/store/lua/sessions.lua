-- sessions: which sessions does the store count for a node? Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 node      node#incarnation
--       2 after     how many to pass over
--       3 count     how many at most
--
-- Answers
--   page, then triples: session, user index, fence

local node = ARGV[1]
local from, to = range_of(node)
local answer = { 'page' }
for _, member in ipairs(call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', ARGV[2], ARGV[3])) do
  local session, user = string.match(member, '^[^/]+/(.+)/([^/]+)$')
  local lease = user and stored_lease(user)
  local claim = lease and lease.sessions[node .. '/' .. session]
  answer[#answer + 1] = session or ''
  answer[#answer + 1] = user or ''
  answer[#answer + 1] = text(claim and claim.fence or 0)
end
return answer
