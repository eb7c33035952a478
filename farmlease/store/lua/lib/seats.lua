-- seats: which seats are left, and for whom. A sweep first ends what is past its deadline, a bounded number per call;
-- then come reservations, and the queue before those who come later. Devices have their names before that is decided.
-- Part of every script of a shard.
--
-- No answer depends on a sweep: a script that counts seats sweeps first, and answers `more` if there was more to end.
--
-- A session that its node did not end has a loss reason: a member of LossReason, listed in the header of the file that
-- gives it.
-- Loss reasons: timeout

-- Gives a lease's devices their names (in memory). Of two spellings of one device the later deadlines stay. Returns the
-- seats that are called otherwise since: before -> now.
local function name_devices(user, lease, names)
  local devices, lingering, charges, moved = {}, {}, {}, {}
  for spelling, claim in pairs(lease.devices) do
    local name = names[spelling] or spelling
    local other = devices[name] or claim
    claim.seen, claim['until'] = math.max(claim.seen, other.seen), math.max(claim['until'], other['until'])
    claim.unused = claim.unused and other.unused
    if other.fence then claim.fence = math.max(claim.fence or 0, other.fence) end
    claim.replaces = names[claim.replaces] or claim.replaces or other.replaces
    devices[name] = claim
  end
  local function seat_now(seat)
    local device = string.match(seat, '^[^/]+/([^/]+)$')
    local name = device and names[device] or device
    if name == device then return seat end
    moved[seat] = user .. '/' .. name
    return moved[seat]
  end
  local function keep_charge(seat)
    charges[seat_now(seat)] = charging.better(charges[seat_now(seat)], lease.charges and lease.charges[seat] or '')
  end
  for _, session in pairs(lease.sessions) do
    keep_charge(session.seat or user)
    session.device = names[session.device] or session.device
    session.seat = session.seat and seat_now(session.seat)
  end
  for seat, deadline in pairs(lease.lingering or {}) do
    keep_charge(seat)
    lingering[seat_now(seat)] = math.max(deadline, lingering[seat_now(seat)] or 0)
  end
  keep_charge(user)
  for seat, charge in pairs(charges) do charges[seat] = charge ~= '' and charge or nil end
  lease.devices, lease.folded = devices, true
  lease.lingering, lease.charges = lease.lingering and lingering, lease.charges and charges
  return moved
end

-- The lease as settled, each device under its name, here and in every set. Returns the answer that asks for names, if
-- that is to be given instead. `name`: what a device is called; a script that swept calls this before it decides.
local function named_lease(user, name, spellings)
  local lease = settled_lease(user)
  local doubtful = lease and doubtful_spellings(lease, name) or {}
  if #doubtful == 0 then return lease end
  local names = cjson.decode(spellings ~= '' and spellings or '{}')
  local instead = ask_names(doubtful, names)
  if instead then return nil, instead end
  local before = lease.charges or {}
  local moved = name_devices(user, lease, names)
  call('HSET', LEASES, user, cjson.encode(lease))
  for seat, now_called in pairs(moved) do
    store_seat(seat, nil, before[seat])
    store_seat(now_called, nil, before[now_called])
  end
  for _, seat in pairs(moved) do
    store_seat(seat, seat_deadline(user, lease, seat), lease.charges and lease.charges[seat])
  end
  if next(moved) ~= nil then write_usage() end
  return lease
end

local SWEEP_SESSIONS = 64 -- dead sessions ended per call, so that no call is long
local SWEEP_PASSES = 1000 -- reads of a node's sessions per call, each past those found to be held before
local SWEEP_LEASES = 8 -- lapsed seats forgotten per call
local NOTICE_KEPT = 7 * 24 * 3600 * 1000 -- ms a node may be silent and still learn what it lost
local SWEEP_PLACES = 1000 -- lapsed places forgotten per call
local QUEUE_PAGE, QUEUE_PAGES = 1000, 100 -- places looked at for those of one user

-- What one user may have in a pool, whatever the policy says: uses, devices, places in the queue. So the cost of a call
-- does not grow without end. farmlease.domain.pool has the same.
local MOST_USES, MOST_DEVICES, MOST_PLACES = 256, 64, 16

-- A limit of the policy (0: none) within what any user may have, and the reason for which it denies.
local function limit_within(allowed, most, reason)
  if allowed > 0 and allowed <= most then return allowed, reason end
  return most, 'user_limit'
end

local function count_of(entries)
  local count = 0
  for _ in pairs(entries) do count = count + 1 end
  return count
end

-- Leaves a notice for a node: its session granted with `fence` was terminated.
local function leave_notice(member, fence, reason)
  call('ZADD', SESSIONS, 0, NOTICE .. member .. '/' .. text(fence) .. '/' .. reason)
  call('ZADD', NODES, text(now + NOTICE_KEPT), NOTICE .. node_of(member))
end

-- Drops the notices for a node that never came back. Returns what is left of the budget.
local function drop_notices(node, budget)
  local from, to = range_of(node)
  local members = call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, budget)
  for _, member in ipairs(members) do call('ZREM', SESSIONS, member) end
  return budget - #members
end

-- Ends a session that its node did not end, and leaves the node a notice if there is a `reason`. It ends at `moment` if
-- it still lived, else it ended when its life did.
local function terminate(member, reason, moment)
  local session, user = string.match(member, '^[^/]+/(.+)/([^/]+)$')
  if not session then
    drop_damaged(SESSIONS, 'session', member)
    call('ZREM', HOLDS, member)
    return
  end
  local key = node_of(member) .. '/' .. session
  local lease = stored_lease(user)
  if not lease or not lease.sessions[key] then -- damaged data of one lease must not stop the whole pool
    call('ZREM', SESSIONS, member)
    call('ZREM', HOLDS, member)
    return
  end
  local contact, ended, lives = session_life(key, lease.sessions[key])
  if moment and lives then contact, ended = moment, moment end
  local claim = end_session(user, lease, key, contact, ended)
  if reason then leave_notice(member, claim.fence, reason) end
  audit('ended', user, node_of(member), session, claim.device, reason or 'reboot', claim.fence)
end

-- Ends the sessions of a user's lease (only those on `device`, if one is given), as many as one call may. True if there
-- are more.
local function terminate_of_lease(user, lease, reason, moment, device)
  local keys = {}
  for key, session in pairs(lease.sessions) do
    if not device or session.device == device then keys[#keys + 1] = key end
  end
  for at, key in ipairs(keys) do
    if at > SWEEP_SESSIONS then return true end
    terminate(key .. '/' .. user, reason, moment)
  end
  return false
end

-- Ends at most `budget` sessions of a node; those that are held stay, unless the node's life is over for sure, which is
-- when there is no `reason`. Returns what is left of the budget.
local function terminate_of_node(node, reason, budget)
  local from, to = range_of(node)
  local held = 0
  for _ = 1, SWEEP_PASSES do
    if budget <= 0 then break end
    local members = call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', held, budget)
    for _, member in ipairs(members) do
      if reason and alive(HOLDS, member) then
        held = held + 1
      else
        terminate(member, reason)
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
    if string.sub(node, 1, 1) == NOTICE then
      budget = drop_notices(node, budget)
    else
      budget = terminate_of_node(node, 'timeout', budget)
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
      terminate(member, 'timeout')
    end
  end
  return budget - #over
end

local function sweep_seats()
  local lapsed = call('ZRANGEBYSCORE', SEATS, '-inf', text(now), 'LIMIT', 0, SWEEP_LEASES)
  if #lapsed == 0 then return end
  before_seats_change()
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
    else
      call('ZREM', QUARANTINE, user) -- of a lease that the store had lost
    end
  end
  write_usage()
end

-- True if there may be more dead sessions, which must end before seats are counted. A lapsed seat never counts: it
-- can wait.
local function sweep()
  if is_time_uncertain() then return false end -- then silence is no sign of death
  local budget = sweep_holds(sweep_nodes(SWEEP_SESSIONS))
  sweep_seats()
  return budget <= 0
end

-- How many seats each reservation has, how many of them are in use, and how many are kept because they are not. Limits
-- are in use likewise.
charging.reserved_seats = function()
  local used, kept = {}, 0
  if limits.reserve == '' and limits.limit == '' then return {}, used, kept end
  for _, entry in ipairs(call('ZRANGEBYSCORE', RESERVED, '(' .. text(now), '+inf')) do
    local id = node_of(entry)
    used[id] = (used[id] or 0) + 1
  end
  local seats = limits.reserve ~= '' and cjson.decode(limits.reserve) or {} -- load_limits has seen that it decodes
  for id, number in pairs(seats) do kept = kept + math.max(0, number - (used[id] or 0)) end
  return seats, used, kept
end

-- The limits that a seat counts in, as they stand in its charge: those of `ids` (JSON list), and those of `before`, its
-- charge until now. Second, the first one of `ids` that has no seat left for it, and third how many it has.
charging.counted_limits = function(used, ids, before)
  if limits.limit == '' then return '' end
  local most, counted = cjson.decode(limits.limit), ''
  for limit in string.gmatch(before, '![^!]+') do
    if most[limit] then counted = counted .. limit end
  end
  for _, id in ipairs(cjson.decode(ids)) do
    if most[id] and not string.find(counted, id, 1, true) then
      if (used[id] or 0) >= most[id] then return counted, id, most[id] end
      counted = counted .. id
    end
  end
  return counted
end

-- Charges a seat (lease in memory), see store_seat.
charging.set = function(lease, seat, charge)
  local before = lease.charges and lease.charges[seat] or ''
  if before == charge then return end
  for _, id in ipairs(charging.charged_to(before)) do call('ZREM', RESERVED, id .. '/' .. seat) end
  lease.charges = lease.charges or {}
  lease.charges[seat] = charge ~= '' and charge or nil
end

local function leave_queue(member)
  call('ZREM', QUEUE, member)
  call('ZREM', WAITS, member)
end

-- How many sessions wait before this one, after lapsed places are removed; nil if there may be more of those than one
-- call may remove.
local function places_ahead(member)
  if call('ZCARD', QUEUE) == 0 then return 0 end
  local gone = call('ZRANGEBYSCORE', WAITS, '-inf', text(now), 'LIMIT', 0, SWEEP_PLACES)
  for _, place in ipairs(gone) do leave_queue(place) end
  if #gone == SWEEP_PLACES then return nil end
  return call('ZRANK', QUEUE, member) or call('ZCARD', QUEUE)
end

-- How many places a user keeps in the queue.
local function places_of(user)
  local count, ending = 0, '/' .. user
  for page = 0, QUEUE_PAGES - 1 do
    local places = call('ZREVRANGE', QUEUE, page * QUEUE_PAGE, (page + 1) * QUEUE_PAGE - 1)
    for _, place in ipairs(places) do
      if string.sub(place, -#ending) == ending and alive(WAITS, place) then count = count + 1 end
    end
    if #places < QUEUE_PAGE then break end
  end
  return count
end
