-- rebuild: what a lease claims stands in its document, and in sets that are made of all documents: seats, sessions,
-- holds, reserved and quarantine. Puts into these sets what they lack, a page of documents per call, and sets aside
-- what does not decode. An administrator who repairs a pool has claims removed that no lease has, too. Repeating it
-- changes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 cursor    'leases 0' to begin, then what the page before answered
--       2 count     about how many documents or members to a page
--       3 by        sealed name of the administrator, for the audit; '' for a node, which removes nothing
--
-- Answers
--   page, next cursor ('': the last one), how many claims were put back, how many were removed
--   none            no policy has given this pool its limits
--   more            as acquire's

local part, at = string.match(ARGV[1], '^(%a+) (%d+)$')
local count, by = tonumber(ARGV[2]), ARGV[3]
if not load_limits() then return { 'none' } end
if by == '' and not has_lost_sets() then
  settle_loss(by)
  return { 'page', '', '0', '0' }
end
if sweep() then return { 'more' } end

local back, gone = 0, 0

-- Puts a member into a set unless it is there with this score.
local function put_back(set, score, member)
  local known = deadline_of(call('ZSCORE', set, member))
  if known == deadline_of(string.match(score, '%w+')) then return end
  if set == SEATS then before_seats_change() end
  call('ZADD', set, score, member)
  back = back + 1
end

local function score_of(deadline)
  return deadline == math.huge and '+inf' or text(deadline)
end

-- The seats that a lease has, each with when it falls free.
local function seats_of(user, lease)
  local seats = {}
  local function add(seat)
    seats[seat] = seat_deadline(user, lease, seat)
  end
  add(user)
  for seat in pairs(lease.lingering or {}) do add(seat) end
  for _, session in pairs(lease.sessions) do add(session.seat or user) end
  return seats
end

local function rebuild_lease(user, lease)
  for key, session in pairs(lease.sessions) do
    put_back(SESSIONS, '0', key .. '/' .. user)
    call('ZADD', NODES, 'NX', text(now + limits.session_timeout_ms), node_of(key)) -- else nothing would ever end it
    if session.hold and session.hold > now then put_back(HOLDS, text(session.hold), key .. '/' .. user) end
  end
  for seat, deadline in pairs(seats_of(user, lease)) do
    local charge = lease.charges and lease.charges[seat]
    put_back(SEATS, score_of(deadline), seat)
    if charge and charge ~= '+' then put_back(RESERVED, score_of(deadline), charge .. '/' .. seat) end
  end
  if lease.back and (lease['until'] or 0) > now then put_back(QUARANTINE, text(lease['until']), user) end
end

-- Whether a lease has this member of a set.
local function is_claimed(name, member)
  if name == 'reserved' then member = string.match(member, '^[^/]*/(.+)$') or '' end
  if name == 'seats' or name == 'reserved' then
    if is_node_seat(member) then
      local node = string.sub(member, 2)
      return call('ZLEXCOUNT', SESSIONS, '[' .. node .. '#', '(' .. node .. '$') > 0
    end
    if alive(QUARANTINE, member) then return true end
    local user = node_of(member)
    local lease = stored_lease(user)
    return lease ~= nil and seats_of(user, lease)[member] ~= nil
  end
  if name == 'queue' then return call('ZSCORE', WAITS, member) ~= false end
  if string.sub(member, 1, 1) == NOTICE then return true end
  local key, user = string.match(member, '^([^/]+/.+)/([^/]+)$')
  local lease = user and stored_lease(user)
  return lease and lease.sessions[key] ~= nil or false
end

-- Looks at a page of a set. Returns where the next one begins, nil if this was the last.
local function remove_unclaimed(name, set)
  local found = call('ZRANGEBYSCORE', set, '-inf', '+inf', 'LIMIT', at, count)
  local stay = tonumber(at)
  for _, member in ipairs(found) do
    if is_claimed(name, member) then
      stay = stay + 1
    else
      if set == SEATS then before_seats_change() end
      drop_damaged(set, name, member)
      gone = gone + 1
    end
  end
  return #found == count and text(stay) or nil
end

local function next_of_leases()
  local found = call('HSCAN', LEASES, at, 'COUNT', count)
  for i = 1, #found[2], 2 do
    local user = found[2][i]
    local lease = stored_lease(user)
    if lease then rebuild_lease(user, lease) end
  end
  if found[1] ~= '0' then return 'leases ' .. found[1] end
  return by ~= '' and 'sessions 0' or ''
end

local SETS = { sessions = { SESSIONS, 'holds 0' }, holds = { HOLDS, 'seats 0' }, seats = { SEATS, 'reserved 0' },
  reserved = { RESERVED, 'queue 0' }, queue = { QUEUE, '' } }

local cursor
if part == 'leases' then
  cursor = next_of_leases()
else
  local on = remove_unclaimed(part, SETS[part][1])
  cursor = on and part .. ' ' .. on or SETS[part][2]
end
if seats_changed then write_usage() end
if cursor == '' then settle_loss(by) end
return { 'page', cursor, text(back), text(gone) }
