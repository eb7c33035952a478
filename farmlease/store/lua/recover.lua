-- recover: a node met a store that it did not know. Begins a new epoch if there is reason to, and takes the node into
-- it: the node is alive from here on, and is to restore what it has.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 policy    version of the policy the caller goes by
--       2 node      node#incarnation
--       3 epoch     that the node knew; 0: none
--       4 seen      highest fence that it has seen
--       5 life      of the server
--       6 expected  ms: what the node thinks the time is; 0: it does not know
--       7 line      of counts that this belongs to
--       8 window    ms for which nobody new is let in, at most, if a new epoch begins
--       9 roster    JSON list: every node#incarnation that this node knew of
--
-- Answers
--   recovering, epoch, end of the window ms, now ms, line    the window may be over
--   configure, policy, more  as acquire's

local version, node, window = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[8])
local caller = { epoch = tonumber(ARGV[3]), seen = tonumber(ARGV[4]), life = ARGV[5],
  expected = tonumber(ARGV[6]), line = tonumber(ARGV[7]) }
local epoch = caller.epoch

local refused = policy_differs(version)
if refused then return refused end

-- 1. Is it less than the node knew, or another server, or another time? What was lost with the data says the count of
--    whoever is first.
local lost = caller.life ~= limits.life or epoch > limits.epoch
  or (epoch == limits.epoch and caller.seen > limits.fence)
  or (epoch > 0 and epoch ~= limits.epoch and limits.blank)
local unused = epoch == 0 and limits.blank and call('ZCARD', NODES) == 0 -- nobody was ever here
local last = limits.vouched > 0 and math.min(now, limits.vouched) or now
caller.witness = lost
local ahead = off(caller)
if ahead ~= 0 or (lost and caller.expected > 0) then set_time(ahead, node, caller) end
if vouches(caller) then limits.vouched = now end
local doubtful = is_doubtful()

-- 2. Everybody who was alive when the store was last heard of is waited for, and not taken for dead meanwhile.
if lost or ahead > 0 or doubtful then
  local why = (ahead > 0 or not lost) and 'clock' or caller.life ~= limits.life and 'server' or 'data'
  limits.epoch = math.max(raw, limits.epoch + 1, epoch + 1)
  limits.recovering = unused and 0 or now + window
  call('HSET', META, 'epoch', text(limits.epoch), 'life', caller.life, 'recovering', text(limits.recovering), 'opened',
    text(now), 'blank', unused and '1' or '', 'taken', text(doubtful and now or limits.taken))
  call('DEL', AWAITED)
  last = text(math.min(now, last))
  for _, other in ipairs(call('ZRANGEBYSCORE', NODES, '(' .. last, '+inf', 'LIMIT', 0, MOST_NODES)) do
    if string.sub(other, 1, 1) ~= WORD then
      call('ZADD', AWAITED, 0, other)
      if deadline_of(call('ZSCORE', NODES, other)) < limits.recovering then
        call('ZADD', NODES, text(limits.recovering), other)
      end
    end
  end
  audit('recovering', '', node, '', '', why .. ' ' .. text(limits.epoch), 0)
end
call('HSET', META, 'fence', text(math.max(limits.fence, caller.seen)))

-- 3. This node is alive, but what it had before it was taken for dead is over.
local deadline = deadline_of(call('ZSCORE', NODES, node))
if deadline and deadline <= now and end_sessions_of(node, 'timeout', SWEEP_SESSIONS) <= 0 then return { 'more' } end
call('ZADD', NODES, text(now + limits.session_timeout), node)
if is_recovering() then
  call('ZADD', AWAITED, 0, node)
  for _, other in ipairs(cjson.decode(ARGV[9])) do call('ZADD', AWAITED, 'NX', 0, other) end
end
return { 'recovering', text(limits.epoch), text(limits.recovering), text(now), text(limits.line) }
