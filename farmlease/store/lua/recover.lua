-- recover: a node met a store that it did not know. Begins a new epoch if there is reason to, and takes the node into
-- it: the node is alive from here on, and is to restore what it has.
--
-- KEYS  the shard's keys, as prelude.lua names them
-- ARGV  1 policy    version of the policy the caller goes by
--       2 node      node#incarnation
--       3 epoch     that the node knew; 0: none
--       4 seen      highest fence that it has seen
--       5 life      of the server
--       6 expected  ms: what the node thinks the time is; 0: it does not know
--       7 window    ms for which nobody new is let in, at most, if a new epoch begins
--       8 roster    JSON list: every node#incarnation that this node knew of
--       9 counted   ms: what time it is if the clock had never stood still or gone back; 0: it does not know
--
-- Answers
--   recovering, epoch, end of the window ms, now ms    the window may be over
--   configure, policy, more  as acquire's

local version, node, epoch, seen = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local life, expected, window, counted = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[9])

local refused = policy_differs(version)
if refused then return refused end

-- 1. Is it less than the node knew, another server, or another time?
local ahead, leapt = leap(expected), leap(expected)
local begins = life ~= limits.life or epoch > limits.epoch or (epoch == limits.epoch and seen > limits.fence)
  or (epoch > 0 and epoch ~= limits.epoch and limits.blank) or ahead > 0
local unused = epoch == 0 and limits.blank and call('ZCARD', NODES) == 0 -- nobody was ever here
if is_back(expected) then
  local skew = limits.skew
  limits.skew = math.max(0, raw - expected)
  now = raw - limits.skew
  audit('clock', '', node, '', '', 'back ' .. text(skew - limits.skew), 0)
end

-- A clock that stood still, or had gone back, and is right again has leapt too: the time is right, but the deadlines
-- that were written meanwhile are too early.
if ahead > 0 and math.abs(now - counted) <= LEAP then ahead = 0 end

-- 2. Everybody who was alive when the store was last heard of is waited for, and not taken for dead meanwhile.
if begins then
  local why = leapt > 0 and 'clock' or life ~= limits.life and 'server' or 'data'
  if leapt > 0 then audit('clock', '', node, '', '', 'ahead ' .. text(leapt), 0) end
  limits.skew, now = limits.skew + ahead, now - ahead
  limits.epoch = math.max(raw, limits.epoch + 1, epoch + 1)
  limits.recovering = unused and 0 or now + window
  call('HSET', META, 'epoch', text(limits.epoch), 'life', life, 'recovering', text(limits.recovering), 'blank',
    unused and '1' or '', 'vouched', text(raw))
  call('DEL', AWAITED)
  local last = text(math.min(now, limits.vouched > 0 and limits.vouched - limits.skew or now))
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
call('HSET', META, 'fence', text(math.max(limits.fence, seen)), 'skew', text(limits.skew))

-- 3. This node is alive, but what it had before it was taken for dead is over.
local deadline = deadline_of(call('ZSCORE', NODES, node))
if deadline and deadline <= now and end_sessions_of(node, 'timeout', SWEEP_SESSIONS) <= 0 then return { 'more' } end
call('ZADD', NODES, text(now + limits.session_timeout), node)
if is_recovering() then
  call('ZADD', AWAITED, 0, node)
  for _, other in ipairs(cjson.decode(ARGV[8])) do call('ZADD', AWAITED, 'NX', 0, other) end
end
return { 'recovering', text(limits.epoch), text(limits.recovering), text(now) }
