-- put_back: a node knows of one user what was taken back, and this store does not: it lost that. It is taken again,
-- but for what was granted later. Putting the same back again changes nothing.
--
-- Uses lib/tombstones.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--       2 node      node#incarnation
--       3 epoch     that the node recovers in
--       4 graves    of the user (JSON), as lib/tombstones.lua has them
--
-- Loss reasons: returned, replaced
--
-- Answers
--   put              the store knows it now
--   strange, more    as acquire's

local user, node, epoch, theirs = ARGV[1], ARGV[2], tonumber(ARGV[3]), cjson.decode(ARGV[4])

if not load_limits() or epoch ~= state.epoch or not alive(NODES, node) then return { 'strange' } end
if sweep() then return { 'more' } end
keep_recovering(node)

-- 1. What is new here?
local graves, new = graves_of(user), {}
for claim, grave in pairs(theirs) do
  local possible = grave[1] <= server_now + FENCE_AHEAD
  if possible and grave[2] > now and not taken_since(graves, claim, grave[1]) then
    graves[claim], new[claim], state.fence = grave, true, math.max(state.fence, grave[1])
  end
end
if next(new) == nil and call('ZSCORE', OVER_NUMBERS, user) then return { 'put' } end
local lease = settled_lease(user)

-- 2. Sessions from before a taking end, as many as one call may: with the taking, which was before now.
local function end_sessions()
  local over = {}
  for key, session in pairs(lease.sessions) do
    local reason, taken = taking_of(graves, lease, session)
    if reason then over[#over + 1] = { member = key .. '/' .. user, reason = reason, taken = taken } end
  end
  for at, each in ipairs(over) do
    if at > SWEEP_SESSIONS then return true end
    terminate(each.member, each.reason, math.min(now, each.taken))
  end
  return false
end

if lease and end_sessions() then return { 'more' } end
local last = lease and fence_of(lease) or 0 -- ended sessions too: a later grant leaves the lease alone
lease = stored_lease(user)

-- 3. The lease, or what is left of it without the devices that were taken.
if lease and taken_since(graves, lease.id, last) then
  -- Whatever was counted too long, and has ended since.
  lease.contact = math.min(lease.contact, taken_with(graves, lease.id))
  if not lease.back then give_back(user, lease) end
elseif lease then
  for device, claim in pairs(lease.devices) do
    if not uses(lease, 'device', device) then
      lease.devices[device] = remaining_slot(graves, lease.id, device, claim)
    end
  end
  call('HSET', LEASES, user, cjson.encode(lease))
end

local function has_room()
  return alive(SEATS, user) or count_alive(SEATS) < limits.capacity
end

-- 4. A seat in quarantine, a user who is kept out or was let in again, and a name that was erased.
lease = stored_lease(user)
for claim in pairs(new) do
  local until_ms, is_later = graves[claim][2], last > graves[claim][1]
  if claim == '/' then
    local known = deadline_of(call('ZSCORE', BARRED, user)) or 0
    if keeps_out(graves) and not is_later then call('ZADD', BARRED, text(math.max(until_ms, known)), user) end
  elseif claim == '//' then
    if taken_with(graves, '/') and not keeps_out(graves) then call('ZREM', BARRED, user) end
  elseif claim == '' then
    if not is_later then call('HDEL', NAMES, user) end
  elseif not lease and string.find(claim, '^[^/]+/$') and has_room() then
    until_ms = math.max(until_ms, deadline_of(call('ZSCORE', QUARANTINE, user)) or 0) -- of an earlier lease
    store_seat(user, until_ms)
    call('ZADD', QUARANTINE, text(until_ms), user)
  end
end
store_graves(user, graves)
audit('taken_back', user, node, '', '', '', 0)
return { 'put' }
