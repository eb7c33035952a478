-- recover: a node found a store that it did not know. Begins a new epoch if there is reason to, and takes the node into
-- it: the node is alive from here on, and is to restore what it has.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 policy    version of the policy the caller goes by
--       2 node      node#incarnation
--       3 window    ms for which no new session starts, at most, if a new epoch begins
--       4 roster    JSON list: every node#incarnation that this node knew of
--       then what the node knows, as lib/shard.lua names it
--
-- Loss reasons: timeout
--
-- Answers
--   recovering, epoch, end of the window ms, now ms, clock generation    the window may be over
--   configure, policy, more  as acquire's

local version, node, window = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local epoch = caller.epoch

local refused = policy_differs(version)
if refused then return refused end

-- 1. Is it less than the node knew, or another server, or another time? If the data are gone, the first node's estimate
--    of the time is accepted.
local keys = lost_keys()
local lost = keys ~= '' or (caller.life ~= state.life and not has_moved()) or epoch > state.epoch
  or (epoch == state.epoch and caller.seen > state.fence)
  or (epoch > 0 and epoch ~= state.epoch and state.blank == '1')
local unused = epoch == 0 and state.blank == '1' and call('ZCARD', NODES) == 0 -- no node was ever here
local last = state.vouched > 0 and math.min(now, state.vouched) or now
local ahead = time_ahead(lost)
if ahead ~= 0 or (lost and caller.expected > 0) then correct_time(ahead, node) end
if confirms_time() then state.vouched = now end
local uncertain = is_time_uncertain()

-- 2. The window waits for every node that was alive when the time was last confirmed; none of them dies meanwhile.
if lost or ahead > 0 or uncertain then
  local why = (ahead > 0 or not lost) and 'clock' or caller.life ~= state.life and 'server' or 'data'
  state.epoch = math.max(server_now, state.epoch + 1, epoch + 1)
  state.recovering = unused and 0 or now + window
  call('HSET', META, 'epoch', text(state.epoch), 'life', caller.life, 'recovering', text(state.recovering), 'opened',
    text(now), 'blank', unused and '1' or '', 'taken', text(uncertain and now or state.taken))
  if keys ~= '' then accept_loss(keys) end
  call('DEL', AWAITED)
  last = text(math.min(now, last))
  for _, other in ipairs(call('ZRANGEBYSCORE', NODES, '(' .. last, '+inf', 'LIMIT', 0, MOST_NODES)) do
    if string.sub(other, 1, 1) ~= NOTICE then
      call('ZADD', AWAITED, 0, other)
      if deadline_of(call('ZSCORE', NODES, other)) < state.recovering then
        call('ZADD', NODES, text(state.recovering), other)
      end
    end
  end
  audit('recovering', '', node, '', '', why .. ' ' .. text(state.epoch), 0)
end
call('HSET', META, 'fence', text(math.max(state.fence, caller.seen)))

-- 3. This node is alive, but what it had before it was taken for dead is over.
local deadline = deadline_of(call('ZSCORE', NODES, node))
if deadline and deadline <= now and terminate_of_node(node, 'timeout', SWEEP_SESSIONS) <= 0 then return { 'more' } end
keep_recovering(node)
call('ZREM', NODES, FORMER .. node) -- of a store with another past
if is_recovering() then
  call('ZADD', AWAITED, 0, node)
  for _, other in ipairs(cjson.decode(ARGV[4])) do call('ZADD', AWAITED, 'NX', 0, other) end
end
return { 'recovering', text(state.epoch), text(state.recovering), text(now), text(state.line) }
