-- heartbeat: this node lives; which of its sessions were terminated meanwhile? Costs the same for one session and for
-- a thousand.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 policy    version of the policy the caller goes by
--       2 node      node#incarnation
--       3 previous  node#incarnation of this host's life before the last boot, whose sessions end now; or ''
--       then what the node knows, as lib/shard.lua names it
--
-- Loss reasons: timeout
--
-- Answers
--   alive, deadline ms, sessions this node has here, now ms, epoch, fence, nodes, ms by which the clock jumped ahead,
--                            clock generation, number of the newest tombstone, what the shard lacks (words, see
--                            epoch.lua; '' if nothing), how much of that nodes may have in their receipts, then
--                            quadruples, at most 100: session, user index, fence, reason: sessions terminated, repeated
--                            at each heartbeat until released; a session granted anew since has a later fence and goes
--                            on
--   configure, policy, strange, more  as acquire's; strange also under a former name: it comes late, or has to recover

local version, node, previous = tonumber(ARGV[1]), ARGV[2], ARGV[3]

local refused = policy_differs(version)
if refused then return refused end
if is_other_store() then return send_to_recover(node) end
if alive(NODES, FORMER .. node) then return { 'strange' } end
local behind = time_ahead()
if behind < 0 then correct_time(behind, node) end
if has_moved() then call('HSET', META, 'life', caller.life) end

-- 1. A reboot ends the old life's sessions at once; no notice is left, since that life is over.
if previous ~= '' then
  if terminate_of_node(previous, nil, SWEEP_SESSIONS) <= 0 then return { 'more' } end
  call('ZREM', NODES, previous)
end

-- 2. A node that was silent past its deadline comes back without its sessions, but for those that are held: they must
--    be gone before it counts as alive again, or the new deadline would bring them back.
local deadline = deadline_of(call('ZSCORE', NODES, node))
if deadline and deadline <= now and terminate_of_node(node, 'timeout', SWEEP_SESSIONS) <= 0 then return { 'more' } end
if sweep_holds(SWEEP_SESSIONS) <= 0 then return { 'more' } end

-- 3. The node is alive, and learns what it lost.
call('ZADD', NODES, text(now + limits.session_timeout_ms), node)
if confirms_time() and not is_recovering() then call('HSET', META, 'vouched', text(now)) end
local from, to = range_of(node)
local answer = { 'alive', text(now + limits.session_timeout_ms), text(call('ZLEXCOUNT', SESSIONS, from, to)), text(now),
  text(state.epoch), text(state.fence), text(call('ZCARD', NODES)), text(state.skew), text(state.line),
  text(state.buried), missing() }
from, to = range_of(NOTICE .. node)
for _, member in ipairs(call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, 100)) do
  local words = { string.match(member, '^[^/]+/(.+)/([^/]+)/(%d+)/([^/]+)$') }
  for _, word in ipairs(words) do answer[#answer + 1] = word end
end
return answer
