-- rebuild: what a lease claims stands in its document, and in sets that are made of all documents: seats, sessions,
-- holds, reserved and quarantine. Puts into these sets what they lack, a page of documents per call, and sets aside
-- what does not decode. An administrator who repairs a pool has claims removed that no lease has, too, and whatever
-- farmlease did not write. Repeating it changes nothing.
--
-- Uses lib/shapes.lua
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

local part, at = string.match(ARGV[1], '^([%l_]+) (%S+)$')
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
    for _, id in ipairs(charging.charged_to(charge)) do put_back(RESERVED, score_of(deadline), id .. '/' .. seat) end
  end
  if lease.back and (lease['until'] or 0) > now then put_back(QUARANTINE, text(lease['until']), user) end
end

-- Whether a lease has this member of a set.
local function is_claimed(name, member)
  if not SHAPES[name](member) then return false end
  if name == 'seats' and not alive(SEATS, member) then return true end -- lapsed: the sweep forgets its lease with it
  if name == 'reserved' and not alive(RESERVED, member) then return true end
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
  if name ~= 'sessions' and name ~= 'holds' then return true end
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

-- Sets aside what is foreign in a page of a hash. Returns where the next one begins, nil if this was the last.
local function remove_foreign(name, set)
  local found = call('HSCAN', set, at, 'COUNT', count)
  for i = 1, #found[2], 2 do
    local field, value = found[2][i], found[2][i + 1]
    if not SHAPES[name](field, value) then
      keep_damaged(name .. '/' .. field, value)
      call('HDEL', set, field)
      gone = gone + 1
    end
  end
  return found[1] ~= '0' and found[1] or nil
end

-- The same of the audit.
local function remove_foreign_entries(name, set)
  local found = call('XRANGE', set, at == '0' and '-' or at, '+', 'COUNT', count)
  for _, entry in ipairs(found) do
    if not is_entry(entry[2]) then
      keep_damaged(name .. '/' .. entry[1], table.concat(entry[2], ' '))
      call('XDEL', set, entry[1])
      gone = gone + 1
    end
  end
  return #found == count and '(' .. found[#found][1] or nil
end

local function next_of_leases()
  local found = call('HSCAN', LEASES, at, 'COUNT', count)
  for i = 1, #found[2], 2 do
    local user = found[2][i]
    if by ~= '' and not is_user(user) then
      keep_damaged('lease/' .. user, found[2][i + 1])
      call('HDEL', LEASES, user)
    end
    local lease = stored_lease(user)
    if lease then rebuild_lease(user, lease) end
  end
  if found[1] ~= '0' then return 'leases ' .. found[1] end
  return by ~= '' and 'sessions 0' or ''
end

-- What is looked at after the leases, in this order: for foreign members where a function says so, else for claims.
local SETS = { { SESSIONS, 'sessions' }, { HOLDS, 'holds' }, { SEATS, 'seats' }, { RESERVED, 'reserved' },
  { QUEUE, 'queue' }, { WAITS, 'waits' }, { NODES, 'nodes' }, { QUARANTINE, 'quarantine' }, { BARRED, 'barred' },
  { AWAITED, 'awaited' }, { USAGE, 'usage' }, { OVER_NUMBERS, 'over_numbers' }, { OVER, 'over', remove_foreign },
  { RECORDS, 'records', remove_foreign }, { NAMES, 'names', remove_foreign }, { META, 'meta', remove_foreign },
  { AUDIT, 'audit', remove_foreign_entries } }

local cursor
if part == 'leases' then cursor = next_of_leases() end
for i, each in ipairs(SETS) do
  if each[2] == part then
    local on, following = (each[3] or remove_unclaimed)(part, each[1]), SETS[i + 1]
    cursor = on and part .. ' ' .. on or following and following[2] .. ' 0' or ''
  end
end
if seats_changed then write_usage() end
if cursor == '' then settle_loss(by) end
return { 'page', cursor, text(back), text(gone) }
