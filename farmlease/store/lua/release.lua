-- release: this session is over, or no longer waits. Also acknowledges the notice of a session that was terminated.
-- Repeating it changes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--       2 node      node#incarnation
--       3 session   session id
--       4 fence     of the grant that is given back: an older one ends nothing; 0 ends nothing at all and acknowledges
--                   every notice
--       then what the node knows, as lib/shard.lua names it
--
-- Answers
--   released, lease document (JSON) or '' if the lease is over too, until ms of its named seat or '', fence of the
--                            lease's last grant: what a later one was answered with is newer than this
--   gone                     there is no such session (any more)
--   stale, fence             the session was granted anew since, with this fence: it goes on
--   strange, more            as acquire's

local user, node, session, fence = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local key = node .. '/' .. session
local member = key .. '/' .. user

local refusal = refuse_other_store()
if refusal then return refusal end
if sweep() then return { 'more' } end

local from, to = range_of(NOTICE .. member)
for _, notice in ipairs(call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, 100)) do
  if fence == 0 or tonumber(string.match(notice, '/(%d+)/[^/]+$') or 0) <= fence then call('ZREM', SESSIONS, notice) end
end
if fence > 0 then leave_queue(member) end

local lease = stored_lease(user)
local claim = lease and lease.sessions[key]
if not claim then
  if fence > 0 then -- left by half of a script, from an append-only file that was cut off
    call('ZREM', SESSIONS, member)
    call('ZREM', HOLDS, member)
  end
  return { 'gone' }
end
if claim.fence > fence then return { 'stale', text(claim.fence) } end

local _, document = end_session(user, lease, key, now, now)
audit('released', user, node, session, claim.device, '', claim.fence)
local kept = document ~= '' and lease['until']
return { 'released', document, kept and text(kept) or '', text(math.max(lease.fence or 0, claim.fence)) }
