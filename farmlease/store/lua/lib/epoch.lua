-- epoch: does the store still hold what its nodes know that it held, and what time is it? Part of every script of a
-- shard. `caller`: what the node that asks knows, see shard.lua.
--
-- An *epoch* is one uninterrupted life of a shard's data. Each node sends the epoch it knows, and the highest fence it
-- has seen. A new epoch begins where the data is gone or older than that, where another server, or another life of it,
-- holds the data, and where its clock has jumped ahead. It begins with a *recovery window*: no new session starts until
-- every node known before has restored what it has, or the window is over. A slot that a Cluster moves, with all its
-- keys, from a server that lives on is no loss: who has made sure of that says so, and a heartbeat notes the server.
--
-- The time of a shard (`now`) is the server's clock, less what that has jumped ahead (`skew`). A node that once
-- received the time counts on from there by a steady clock of its own, and sends this estimate (`expected`) with each
-- call. One rule: **an estimate holds the time back, and never moves it on past the server's clock.**
--   More than LEAP ahead of an estimate: the clock has jumped. The time goes on as estimated, and a new epoch begins,
--   since a caller without an estimate may have ended what the clock jumped over.
--   More than LEAP behind: the clock was put back, or stood still. What was held back is let go by as much; apart from
--   that the time goes back with the clock, and claims last as much longer.
-- Either way a new *clock generation* begins. An estimate of an earlier generation may have begun before the clock was
-- set or after: it proves nothing. Nor does one that stood still itself, which shows where other nodes confirmed the
-- clock meanwhile.
-- If the data are gone, so is the generation: the first node's estimate is accepted.
-- A living node beats twice in a session timeout, and so confirms the time. Where none did for half of one, the time is
-- *uncertain*, and ends no session. A caller whose estimate does not confirm it then begins a new epoch: a node with
-- an estimate has the recovery window to correct the time; after that the clock is taken as it is.
--
-- In meta, by the names of the stored format: epoch (number, grows), life (of the server that holds the data),
-- recovering (end of the window, ms; 0 once it is over), opened (ms: when it began), blank ('1': this epoch began with
-- nothing, by a node that knew of nothing before), skew (ms), line (the clock generation: a number that grows), vouched
-- (ms: the time when an estimate last confirmed it), taken (ms: when it was taken as it is).

local LEAP = 60000 -- ms that the time may differ from an estimate; farmlease.store.answers.recovery has the same
local MOST_NODES = 10000

-- By how many ms the time is ahead of the caller's estimate (negative: behind); 0 if it is right, or if the estimate
-- proves nothing. `any_generation`: the data are gone, see above.
local function time_ahead(any_generation)
  if caller.expected == 0 or (caller.clock_generation ~= state.line and not any_generation) then return 0 end
  local ahead = now - caller.expected
  if math.abs(ahead) <= LEAP or (ahead > 0 and now - state.vouched < ahead) then return 0 end
  return ahead
end

local function confirms_time()
  return caller.expected > 0 and caller.clock_generation == state.line and math.abs(now - caller.expected) <= LEAP
end

-- Corrects the time by an estimate that it is `ahead` of, or behind. A node that was alive stays alive, though its
-- deadline may have been written while the time was behind. The new generation is none that was known before, even if
-- the clock stands still.
local function correct_time(ahead, node)
  local skew = math.max(0, state.skew + ahead)
  local step = state.skew - skew
  if step > 0 then
    for _, other in ipairs(call('ZRANGEBYSCORE', NODES, '(' .. text(now), '+inf', 'LIMIT', 0, MOST_NODES)) do
      if string.sub(other, 1, 1) ~= NOTICE then
        local deadline = deadline_of(call('ZSCORE', NODES, other)) + step
        call('ZADD', NODES, text(math.min(deadline, now + step + limits.session_timeout_ms)), other)
      end
    end
  end
  -- A window that is over by the estimate is not opened again; but for one that was opened by the clock as it is now,
  -- and of which the caller does not know: its estimate began before.
  local knows_window = caller.epoch == state.epoch or state.opened > now
  if knows_window and state.recovering <= now - ahead then state.recovering = 0 end
  state.skew = skew
  state.line = math.max(server_now, state.line + 1, caller.clock_generation + 1, caller.epoch + 1)
  now = server_now - skew
  state.vouched = now
  call('HSET', META, 'skew', text(skew), 'line', text(state.line), 'vouched', text(now), 'recovering',
    text(state.recovering))
  local way = ahead > 0 and 'ahead ' or 'back '
  if ahead ~= 0 then audit('clock', '', node, '', '', way .. text(math.abs(ahead)), 0) end
end

-- Whether this is not the store that the caller knew, or its time may be wrong.
local function is_other_store()
  if confirms_time() then state.vouched = now end -- for this script
  return (caller.epoch > 0 and caller.epoch ~= state.epoch) or caller.seen > state.fence
    or (caller.life ~= state.life and not has_moved()) or time_ahead() > 0 or is_time_uncertain()
end

local function is_recovering()
  return state.recovering > now
end

-- The answer to a node that does not know this store: it will restore what it has, and the window waits for it from
-- here on, whether it was known before or not.
local function send_to_recover(node)
  if is_recovering() then call('ZADD', AWAITED, 'NX', 0, node) end
  return { 'strange' }
end

-- The answer to a node that asks about its own session of a store it does not know, or nil.
local function refuse_other_store()
  if not load_limits() then return { caller.epoch > 0 and 'strange' or 'gone' } end
  if is_other_store() then return { 'strange' } end
  return nil
end
