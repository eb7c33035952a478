-- heartbeat: this node lives; which of its sessions were taken away meanwhile? Costs the same for one session and for
-- a thousand.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 policy    version of the policy the caller goes by
--       2 node      node#incarnation
--       3 previous  node#incarnation of this host's life before the last boot, whose sessions end now; or ''
--       4 epoch     that the node knows; 0: none
--       5 seen      highest fence that it has seen
--       6 life      of the server
--       7 expected  ms: what the node thinks the time is; 0: it does not know
--       8 line      of counts that this belongs to
--
-- Answers
--   alive, deadline ms, sessions this node has here, now ms, epoch, fence, nodes, ms by which the clock leapt ahead,
--                            line, then up to 100 quadruples: session, user index, fence, reason: sessions taken away,
--                            told at each heartbeat until released; a session granted anew since has a later fence
--                            and goes on
--   configure, policy, strange, more  as acquire's

local version, node, previous = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local caller = { epoch = tonumber(ARGV[4]), seen = tonumber(ARGV[5]), life = ARGV[6],
  expected = tonumber(ARGV[7]), line = tonumber(ARGV[8]) }

local refused = policy_differs(version)
if refused then return refused end
if estranged(caller) then return sent_to_recover(node) end
local behind = off(caller)
if behind < 0 then set_time(behind, node, caller) end

-- 1. A reboot ends the old life's sessions at once, and nobody is left to be told.
if previous ~= '' then
  if end_sessions_of(previous, nil, SWEEP_SESSIONS) <= 0 then return { 'more' } end
  call('ZREM', NODES, previous)
end

-- 2. A node that was silent past its deadline comes back without its sessions, but for those that are held: they must
--    be gone before it counts as alive again, or the new deadline would bring them back.
local deadline = deadline_of(call('ZSCORE', NODES, node))
if deadline and deadline <= now and end_sessions_of(node, 'timeout', SWEEP_SESSIONS) <= 0 then return { 'more' } end
if sweep_holds(SWEEP_SESSIONS) <= 0 then return { 'more' } end

-- 3. Alive, and told what it lost.
call('ZADD', NODES, text(now + limits.session_timeout), node)
if vouches(caller) and not is_recovering() then call('HSET', META, 'vouched', text(now)) end
local from, to = range_of(node)
local answer = { 'alive', text(now + limits.session_timeout), text(call('ZLEXCOUNT', SESSIONS, from, to)), text(now),
  text(limits.epoch), text(limits.fence), text(call('ZCARD', NODES)), text(limits.skew), text(limits.line) }
from, to = range_of(WORD .. node)
for _, member in ipairs(call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, 100)) do
  local words = { string.match(member, '^[^/]+/(.+)/([^/]+)/([^/]+)/([^/]+)$') }
  for _, word in ipairs(words) do answer[#answer + 1] = word end
end
return answer
