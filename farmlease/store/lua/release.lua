-- release: this session is over. Also acknowledges a session that was taken away. Doing it again changes nothing.
--
-- KEYS  the shard's keys, as prelude.lua names them
-- ARGV  1 user      user index
--       2 node      node#incarnation
--       3 session   session id
--       4 fence     of the grant that is given back: an older one ends nothing
--
-- Answers
--   released, expires ms     the lease stays with the user until then
--   gone                     there is no such session (any more)
--   stale, fence             the session was granted anew since, with this fence: it goes on
--   more                     as acquire's

local user, node, session, fence = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local key = node .. '/' .. session

if not load_limits() then return { 'gone' } end
if sweep() then return { 'more' } end

local from, to = range_of(WORD .. key .. '/' .. user)
for _, told in ipairs(call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, 10)) do
  call('ZREM', SESSIONS, told)
end

local lease = settled_lease(user)
local claim = lease and lease.sessions[key]
if not claim then return { 'gone' } end
if claim.fence > fence then return { 'stale', text(claim.fence) } end

lease = stored_lease(user)
drop_session(lease, key, now)
store_lease(user, lease)
call('ZREM', SESSIONS, key .. '/' .. user)
audit('released', user, node, session, claim.device, '', claim.fence)
return { 'released', text(lease['until']) }
