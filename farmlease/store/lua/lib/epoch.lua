-- epoch: does the store still hold what its nodes know that it held, and what time is it? Part of every script of a
-- shard.
--
-- An *epoch* is one uninterrupted life of a shard's data. Each node says which one it knows, and the highest fence it
-- has seen. A new one begins where the data is gone or older than that, where another server, or another life of it,
-- holds the data, and where its clock has leapt ahead. It begins with a *recovery window*: nobody new is let in until
-- every node known before has restored what it has, or the window is over.
--
-- The time of a shard (`now`) is the server's clock, less what that has leapt ahead (`skew`). Who heard it counts it on
-- by a steady clock of its own, and says with each question what it should be. One rule: **a count holds the time back,
-- and never moves it on past the server's clock.**
--   More than LEAP ahead of a count: the clock has leapt. The time goes on as counted, and a new epoch begins, since
--   somebody who does not count may have ended what was leapt over.
--   More than LEAP behind: the clock was put back, or stood still. What was held back is let go by as much; apart from
--   that the time goes back with the clock, and claims last as much longer.
-- Either way a new *line* of counts begins. A count of an earlier line may have begun before the clock was set or
-- after: it says nothing. Nor does one that stood still itself, which is seen where others found the clock right
-- meanwhile.
-- What was lost with the data, nobody can say but the first who comes back: there any count will do.
-- Who lives beats twice in a session timeout, and so vouches for the time. Where nobody did for half of one, it is in
-- *doubt*, and ends no session. Who comes then without a count that vouches for it begins a new epoch: whoever counts
-- has the recovery window to say what time it is; then the clock is taken as it is.
--
-- In meta: epoch (number, grows), life (of the server that holds the data), recovering (end of the window, ms; 0 once
-- it is over), opened (ms: when it began), blank ('1': this epoch began with nothing, by somebody who knew of nothing
-- before), skew (ms), line (number, grows), vouched (ms: the time when a count last found it right), taken (ms: when it
-- was taken as it is).

local LEAP = 60000 -- ms that the time may differ from a count
local MOST_NODES = 10000

-- By how many ms the time is ahead of the caller's count (negative: behind); 0 if it is right, as far as that says.
local function off(caller)
  if caller.expected == 0 or (caller.line ~= limits.line and not caller.witness) then return 0 end
  local ahead = now - caller.expected
  if math.abs(ahead) <= LEAP or (ahead > 0 and now - limits.vouched < ahead) then return 0 end
  return ahead
end

-- Whether the caller's count finds the time right.
local function vouches(caller)
  return caller.expected > 0 and caller.line == limits.line and math.abs(now - caller.expected) <= LEAP
end

-- Goes by a count that the time is `ahead` of, or behind. Who was alive goes on, though its deadline may have been
-- written while the time was behind. The new line is none that was known before, though the clock stands still.
local function set_time(ahead, node, caller)
  local skew = math.max(0, limits.skew + ahead)
  local step = limits.skew - skew
  if step > 0 then
    for _, other in ipairs(call('ZRANGEBYSCORE', NODES, '(' .. text(now), '+inf', 'LIMIT', 0, MOST_NODES)) do
      if string.sub(other, 1, 1) ~= WORD then
        local deadline = deadline_of(call('ZSCORE', NODES, other)) + step
        call('ZADD', NODES, text(math.min(deadline, now + step + limits.session_timeout)), other)
      end
    end
  end
  -- Over by the count, and no window again; but for one that was opened by the clock as it is now, and of which the
  -- caller has not heard: its count began before.
  local told = caller.epoch == limits.epoch or limits.opened > now
  if told and limits.recovering <= now - ahead then limits.recovering = 0 end
  limits.skew, limits.line = skew, math.max(raw, limits.line + 1, caller.line + 1, caller.epoch + 1)
  now = raw - skew
  limits.vouched = now
  call('HSET', META, 'skew', text(skew), 'line', text(limits.line), 'vouched', text(now), 'recovering',
    text(limits.recovering))
  local way = ahead > 0 and 'ahead ' or 'back '
  if ahead ~= 0 then audit('clock', '', node, '', '', way .. text(math.abs(ahead)), 0) end
end

-- Whether this is not the store that the caller knew, or not for sure its time.
local function estranged(caller)
  if vouches(caller) then limits.vouched = now end -- to this script
  return (caller.epoch > 0 and caller.epoch ~= limits.epoch) or caller.seen > limits.fence
    or caller.life ~= limits.life or off(caller) > 0 or is_doubtful()
end

local function is_recovering()
  return limits.recovering > now
end

-- The answer that sends a node away which does not know this store: it is about to restore what it has, and is waited
-- for from here on, whether anybody knew of it or not.
local function sent_to_recover(node)
  if is_recovering() then call('ZADD', AWAITED, 'NX', 0, node) end
  return { 'strange' }
end

-- The answer that sends a node away which asks about a session of its own, or nil.
local function no_session_here(caller)
  if not load_limits() then return { caller.epoch > 0 and 'strange' or 'gone' } end
  if estranged(caller) then return { 'strange' } end
  return nil
end
