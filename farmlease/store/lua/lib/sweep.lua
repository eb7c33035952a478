-- sweep: what is past its deadline is written down as ended, a bounded number per call. Part of every script of a
-- shard.
-- No answer depends on it: a script that counts sweeps first, and asks to be called again if there was more.

local SWEEP_SESSIONS = 64 -- dead sessions ended per call, so that no call is long
local SWEEP_PASSES = 1000 -- looks at a node's sessions per call, each past those found to be held before
local SWEEP_LEASES = 8 -- lapsed seats forgotten per call
local WORD_KEPT = 7 * 24 * 3600 * 1000 -- ms a node may be silent and still be told what it lost

-- Leaves word for a node that the session granted with `fence` was taken from it.
local function leave_word(member, fence, reason)
  call('ZADD', SESSIONS, 0, WORD .. member .. '/' .. text(fence) .. '/' .. reason)
  call('ZADD', NODES, text(now + WORD_KEPT), WORD .. node_of(member))
end

-- Forgets the word left for a node that never asked. Returns what is left of the budget.
local function forget_word(node, budget)
  local from, to = range_of(node)
  local members = call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, budget)
  for _, member in ipairs(members) do call('ZREM', SESSIONS, member) end
  return budget - #members
end

-- Ends a session that its node did not end, and leaves word for the node if there is a `reason` to tell. It ends at
-- `moment` if it still lived, else it ended when its life did.
local function take_away(member, reason, moment)
  local session, user = string.match(member, '^[^/]+/(.+)/([^/]+)$')
  local key = node_of(member) .. '/' .. session
  local lease = stored_lease(user)
  if not lease or not lease.sessions[key] then -- somebody else's hand in the data must not stop the whole pool
    call('ZREM', SESSIONS, member)
    call('ZREM', HOLDS, member)
    return
  end
  local contact, ended, lives = session_life(key, lease.sessions[key])
  if moment and lives then contact, ended = moment, moment end
  local claim = end_session(user, lease, key, contact, ended)
  if reason then leave_word(member, claim.fence, reason) end
  audit('ended', user, node_of(member), session, claim.device, reason or 'reboot', claim.fence)
end

-- Ends the sessions of a user's lease (only those on `device`, if one is given), as many as one call may. True if there
-- are more.
local function take_lease_away(user, lease, reason, moment, device)
  local keys = {}
  for key, session in pairs(lease.sessions) do
    if not device or session.device == device then keys[#keys + 1] = key end
  end
  for at, key in ipairs(keys) do
    if at > SWEEP_SESSIONS then return true end
    take_away(key .. '/' .. user, reason, moment)
  end
  return false
end

-- Ends at most `budget` sessions of a node; those that are held stay, unless the node's life is over for sure, which is
-- when there is no `reason`. Returns what is left of the budget.
local function end_sessions_of(node, reason, budget)
  local from, to = range_of(node)
  local held = 0
  for _ = 1, SWEEP_PASSES do
    if budget <= 0 then break end
    local members = call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', held, budget)
    for _, member in ipairs(members) do
      if reason and alive(HOLDS, member) then
        held = held + 1
      else
        take_away(member, reason)
        budget = budget - 1
      end
    end
    if #members == 0 then break end
  end
  return budget
end

local function sweep_nodes(budget)
  local dead = call('ZRANGEBYSCORE', NODES, '-inf', text(now), 'LIMIT', 0, SWEEP_SESSIONS)
  for _, node in ipairs(dead) do
    if string.sub(node, 1, 1) == WORD then
      budget = forget_word(node, budget)
    else
      budget = end_sessions_of(node, 'timeout', budget)
    end
    if budget <= 0 then return 0 end
    call('ZREM', NODES, node)
  end
  return #dead < SWEEP_SESSIONS and budget or 0
end

-- A hold that is over ends a session whose node has fallen silent meanwhile.
local function sweep_holds(budget)
  local over = call('ZRANGEBYSCORE', HOLDS, '-inf', text(now), 'LIMIT', 0, budget)
  for _, member in ipairs(over) do
    if alive(NODES, node_of(member)) then
      call('ZREM', HOLDS, member)
    else
      take_away(member, 'timeout')
    end
  end
  return budget - #over
end

local function sweep_seats()
  local lapsed = call('ZRANGEBYSCORE', SEATS, '-inf', text(now), 'LIMIT', 0, SWEEP_LEASES)
  if #lapsed == 0 then return end
  seats_change()
  call('ZREMRANGEBYSCORE', RESERVED, '-inf', text(now))
  for _, seat in ipairs(lapsed) do
    local user = node_of(seat)
    local lease = stored_lease(user)
    call('ZREM', SEATS, seat)
    if lease then
      if lease.lingering then lease.lingering[seat] = nil end
      if lease.charges then lease.charges[seat] = nil end
      if lease_deadline(user, lease) <= now then
        forget_lease(user)
        audit('lapsed', user, '', '', '', '', 0)
      else
        call('HSET', LEASES, user, cjson.encode(lease))
      end
    end
  end
  keep_books()
end

-- True if there may be more dead sessions, which a caller that counts must see ended first. A lapsed seat never counts,
-- so those can wait.
local function sweep()
  if is_doubtful() then return false end -- silence is no sign of death where the time is not sure
  local budget = sweep_holds(sweep_nodes(SWEEP_SESSIONS))
  sweep_seats()
  return budget <= 0
end
