-- restore: what a node knows of one user's lease, and its own sessions of it, counted again after the store lost them.
-- Of two leases the one issued later is the user's; of two records the one of the higher version. Nothing is restored
-- over a limit, nor what was taken back since. Restoring the same again changes nothing.
--
-- Uses lib/tombstones.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 policy    version of the policy the caller goes by
--       2 user      user index
--       3 node      node#incarnation
--       4 epoch     that the node recovers in
--       5 lease     lease document (JSON), as an answer of the store had it
--       6 sessions  JSON object: the node's sessions of it: id -> {device, started, fence, and perhaps seat, hold}
--                   or with over (ms): it ended with the node's boot, and is no more than a named lease's contact then
--       7 record_version
--       8 record    sealed record of that version
--       9 name      sealed user name
--      10 spellings as acquire's
--
-- Loss reasons: timeout, capacity, session_limit, user_limit, returned, replaced
--
-- Answers
--   restored, then threes: session, reason, fence: sessions that were not, and why; or, without a reason, that were,
--                            and which fence the store had given them after the one that the node knows
--   full                     the lease has no session here, and there is no seat for it
--   spelled, JSON list       devices of the lease, here or as the node knows it, stand there in these spellings: ask
--                            again with their names
--   ended                    the lease is over, or was given up for a later one: its sessions have lost their seats
--   configure, policy, strange, more  as acquire's

local version, user, node, epoch = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local mine, wanted = cjson.decode(ARGV[5]), cjson.decode(ARGV[6])
local record_version, record, name, spellings = tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10]

local refused = policy_differs(version)
if refused then return refused end
if epoch ~= state.epoch or not alive(NODES, node) then return { 'strange' } end -- or it has to recover first
if sweep() then return { 'more' } end
for _, claim in pairs(wanted) do
  if claim.fence > server_now + FENCE_AHEAD then claim.fence = state.fence end -- none that was given
end
local graves = graves_of(user)

local new_devices = {} -- that the lease here did not have

-- Takes over what the node knows of devices and contacts: the later of both. A slot that has lapsed is none.
local function merge(lease)
  for device in pairs(lease.devices) do
    if device_deadline(lease, device) <= now then lease.devices[device] = nil end
  end
  lease.contact = math.max(lease.contact, mine.contact)
  if mine['until'] then lease['until'] = math.max(lease['until'] or 0, mine['until']) end
  for device, theirs in pairs(mine.devices) do
    theirs = remaining_slot(graves, mine.id, device, theirs)
    if theirs then
      local ours = lease.devices[device] or theirs
      new_devices[device] = not lease.devices[device] or nil
      ours.seen, ours['until'] = math.max(ours.seen, theirs.seen), math.max(ours['until'], theirs['until'])
      if not theirs.unused then ours.unused = nil end
      if theirs.fence then ours.fence = math.max(ours.fence or 0, theirs.fence) end
      lease.devices[device] = ours
    end
  end
  if #(mine.replaced or {}) > #(lease.replaced or {}) then lease.replaced = mine.replaced end
  if not mine.unused then lease.unused = nil end
  lease.folded = lease.folded or mine.folded
  if mine.fence then lease.fence = math.max(lease.fence or 0, mine.fence) end
end

-- Gives the devices that the node knows their names, those of its sessions too. Returns the answer that asks for them.
local function name_mine()
  local doubtful = doubtful_spellings(mine, '')
  if #doubtful == 0 then return nil end
  local names = cjson.decode(spellings ~= '' and spellings or '{}')
  local instead = ask_names(doubtful, names)
  if instead then return instead end
  name_devices(user, mine, names)
  name_devices(user, { devices = {}, sessions = wanted }, names)
  return nil
end

-- Drops devices where both together are more than the pool allows: those that the lease here did not have first, then
-- those that were in use longest ago. One in use stays, and a limit that was lowered since takes no slot from anybody.
local function within_device_limit(lease)
  local most = limit_within(limits.devices_per_user, MOST_DEVICES)
  local known, used, here = {}, 0, 0
  for device, claim in pairs(lease.devices) do
    if device_deadline(lease, device) <= now then
      lease.devices[device] = nil
    else
      local is_used, is_new = uses(lease, 'device', device), new_devices[device]
      used, here = used + (is_used and 1 or 0), here + (is_new and 0 or 1)
      known[#known + 1] = { is_used and 2 or is_new and 0 or 1, claim.seen, device }
    end
  end
  table.sort(known, function(one, other)
    for at = 1, 2 do
      if one[at] ~= other[at] then return one[at] > other[at] end
    end
    return one[3] < other[3]
  end)
  for at = math.max(most, used, here) + 1, #known do lease.devices[known[at][3]] = nil end
end

-- What a seat is charged to, as the node knows it; beyond the capacity is beyond the capacity.
local function charge_of(seat)
  local known = mine.charges and mine.charges[seat]
  if known or alive(SEATS, seat) or is_node_seat(seat) then return known or '' end
  return count_alive(SEATS) >= limits.capacity and '+' or ''
end

-- Takes the sessions that are over out of those to be counted. Returns which of them were a named lease's contacts.
local function last_contacts()
  local found = {}
  for session, claim in pairs(wanted) do
    if claim.over then
      wanted[session] = nil
      local is_in_time = limits.kind == 'named' and claim.over + limits.lease_ms > now
      if is_in_time and not taking_of(graves, mine, claim) then found[#found + 1] = claim end
    end
  end
  return found
end

local function has_room(seat)
  return is_node_seat(seat) or alive(SEATS, seat) or count_alive(SEATS) < limits.capacity + limits.overdraft
end

-- Why the lease may not have this session too; nil if it may. Devices that no session uses give way to its own.
local function over_session_limit(lease, key, device)
  local most, reason = limit_within(limits.sessions_per_user, MOST_USES, 'session_limit')
  if not lease.sessions[key] and count_of(lease.sessions) >= most then return reason end
  local used = { [device] = true }
  for _, other in pairs(lease.sessions) do used[other.device] = true end
  return count_of(used) > MOST_DEVICES and 'user_limit' or nil
end

-- Why a session was terminated for good; nil if it was not. In the window, silence was not the node's fault: nobody
-- can tell a server that lost its last writes from one that lost none.
local function terminated(member, fence)
  local from, to = range_of(NOTICE .. member)
  for _, notice in ipairs(call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, 100)) do
    local given, reason = string.match(notice, '/(%d+)/([^/]+)$')
    if tonumber(given or 0) >= fence and not (is_recovering() and reason == 'timeout') then return reason end
    call('ZREM', SESSIONS, notice)
  end
  return nil
end

-- The fence of the last grant that the node knows of.
local function last_known()
  local latest = fence_of(mine)
  for _, claim in pairs(wanted) do latest = math.max(latest, claim.fence) end
  return latest
end

-- Of two leases the one issued later is the user's; where the clock stood still, the one granted later.
local function is_later(one, other)
  return one.issued > other.issued or one.issued == other.issued and fence_of(one) > fence_of(other)
end

-- 1. Whose lease is it?
local bar = deadline_of(call('ZSCORE', BARRED, user))
local is_after_bar = last_known() > (taken_with(graves, '/') or math.huge) -- it has another name
if bar and bar > now and not is_after_bar or taken_since(graves, mine.id, last_known()) then return { 'ended' } end
local is_forgotten = taken_since(graves, '', last_known())
local lease, spelled = named_lease(user, '', spellings)
spelled = spelled or name_mine()
if spelled then return spelled end
if lease and lease.id ~= mine.id and not is_later(mine, lease) then return { 'ended' } end
if lease and lease.back and lease.contact >= mine.contact then return { 'ended' } end
local contacts = last_contacts()
if next(wanted) == nil and #contacts == 0 and (mine['until'] or 0) <= now then return { 'ended' } end
if lease and lease.id ~= mine.id then
  if terminate_of_lease(user, lease, 'timeout') then return { 'more' } end
  local old = stored_lease(user)
  for seat in pairs(old and old.lingering or {}) do store_seat(seat, nil, old.charges and old.charges[seat]) end
  write_usage()
  lease = nil
end
local fresh = not lease
if fresh then
  lease = { id = mine.id, issued = mine.issued, contact = mine.contact, version = record_version, devices = {},
    sessions = {}, unused = mine.unused }
end
merge(lease)
lease.back = nil
for _, claim in ipairs(contacts) do
  local contact = math.min(claim.over, now)
  lease.devices[claim.device] = lease.devices[claim.device] or { seen = contact, ['until'] = contact }
  note_contact(user, lease, claim.device, user, contact)
end

-- 2. Its sessions, as far as there is room.
local answer, seats, fence = { 'restored' }, {}, state.fence

local function add(...)
  for _, word in ipairs({ ... }) do answer[#answer + 1] = word end
end

for session, claim in pairs(wanted) do
  local key = node .. '/' .. session
  local member, seat = key .. '/' .. user, claim.seat or seat_for(user, key, claim.device)
  claim.seat = seat ~= user and seat or nil
  local reason = terminated(member, claim.fence) or taking_of(graves, mine, claim) or not has_room(seat) and 'capacity'
    or over_session_limit(lease, key, claim.device) or nil
  if reason then
    add(session, reason, '')
  else
    local known = lease.sessions[key]
    claim.hold = claim.hold and math.min(claim.hold, now + limits.max_hold_ms) -- whatever the node sends
    if known and (known.seat or user) ~= seat then -- an earlier session of this id, which the store still counts
      local old = drop_session(user, lease, key, lease.contact, now)
      store_lease(user, lease, old.seat or user)
      known = nil
    end
    if known then
      if known.fence > claim.fence then add(session, '', text(known.fence)) end -- of a grant whose answer was lost
      claim.fence = math.max(claim.fence, known.fence)
      claim.hold = (claim.hold or known.hold) and math.max(claim.hold or 0, known.hold or 0)
    end
    lease.sessions[key] = claim
    if lease.fence then lease.fence = math.max(lease.fence, claim.fence) end
    new_devices[claim.device] = new_devices[claim.device] or not lease.devices[claim.device]
    lease.devices[claim.device] = lease.devices[claim.device] or { seen = lease.contact, ['until'] = lease.contact }
    call('ZADD', SESSIONS, 0, member)
    if claim.hold and claim.hold > now then call('ZADD', HOLDS, text(claim.hold), member) end
    set_charge(lease, seat, charge_of(seat))
    store_lease(user, lease, seat)
    seats[seat], fence = true, math.max(fence, claim.fence)
  end
end

-- 3. The lease itself.
if next(seats) == nil then
  if lease_deadline(user, lease) <= now then return #answer > 1 and answer or { 'ended' } end
  if lease['until'] and not has_room(user) then return #answer > 1 and answer or { 'full' } end
  set_charge(lease, user, charge_of(user))
end
within_device_limit(lease)
if fresh or call('HEXISTS', RECORDS, user) == 0 then
  lease.version = record_version
  put_record(user, record)
elseif record_version > lease.version then
  lease.version = record_version
  call('HSET', RECORDS, user, record)
end
store_lease(user, lease, user)
if name ~= '' and not is_forgotten then call('HSETNX', NAMES, user, name) end
call('ZREM', QUARANTINE, user)
if is_after_bar then call('ZREM', BARRED, user) end
state.fence = fence
audit('restored', user, node, '', '', '', fence)
return answer
