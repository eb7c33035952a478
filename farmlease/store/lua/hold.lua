-- hold: keep this session's seat for a while, whatever its node does, as while a form is open.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--       2 node      node#incarnation
--       3 session   session id
--       4 fence     of the session's grant
--       5 span      ms; more than the pool's longest hold counts as that
--       then what the node knows, as lib/shard.lua names it
--
-- Answers
--   held, until ms           now, if the pool allows no holds
--   gone                     there is no such session (any more)
--   stale, fence             the session was granted anew since
--   strange, more            as acquire's

local user, node, session = ARGV[1], ARGV[2], ARGV[3]
local key = node .. '/' .. session

local refusal = refuse_other_store()
if refusal then return refusal end
if sweep() then return { 'more' } end
local lease = settled_lease(user)
local claim = lease and lease.sessions[key]
if not claim then return { 'gone' } end
if claim.fence ~= tonumber(ARGV[4]) then return { 'stale', text(claim.fence) } end

local hold = now + math.min(tonumber(ARGV[5]), limits.max_hold_ms)
lease = stored_lease(user)
lease.sessions[key].hold = hold
call('HSET', LEASES, user, cjson.encode(lease))
call('ZADD', HOLDS, text(hold), key .. '/' .. user)
audit('held', user, node, session, claim.device, text(hold), claim.fence)
return { 'held', text(hold) }
