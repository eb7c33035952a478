-- leases: the lease document and the seats, devices and sessions it claims. Part of every script of a shard.
--
-- Document: id, issued, contact (last contact), fence (of the last grant), version (of the record), devices {name ->
-- {seen, until, fence (of its last grant or replacement), and perhaps unused, replaces (another device)}}, sessions
-- {node#incarnation/session -> {device, started, fence, seat, hold}};
-- and, only where they apply: saved (when this version of the record was), until (when the named seat falls free),
-- lingering {seat -> until}, charges {seat -> charge, see below}, back (was given back: until
-- is the end of its quarantine), unused, replaced [times at which a device was replaced], folded (each device stands
-- under its name, see the end of this file). All times in ms. Ids of sessions and devices hold no / and no #: Python
-- encodes them.
-- `seat` is left out of a session where it is the user index, as for every named lease.
-- A device or seat with a session has no deadline; the one written counts once its last session has ended.
-- What a seat is kept by stands in the document and in the seat's own form, never in the pool's present kind: a policy
-- that changes kind or share neither shortens a claim nor leaves a seat behind that is never freed.

local function is_number(value)
  return type(value) == 'number' and value >= 0 and value < 9e15 -- whole numbers beyond that are none
end

local function is_number_or_none(value)
  return value == nil or is_number(value)
end

local function is_session(key, session, devices)
  return type(key) == 'string' and string.match(key, '^[^/#]+#[^/]*/.') ~= nil and type(session) == 'table'
    and type(session.device) == 'string' and devices[session.device] ~= nil and is_number(session.fence)
    and is_number(session.started) and is_number_or_none(session.hold)
    and (session.seat == nil or type(session.seat) == 'string')
end

-- Whether each value of a table that need not be there is of this type.
local function are_all(values, kind)
  if values == nil then return true end
  if type(values) ~= 'table' then return false end
  for _, value in pairs(values) do
    if type(value) ~= kind then return false end
  end
  return true
end

-- Whether a document has all that the scripts need of a lease, see leases.lua.
local function is_lease(lease)
  if type(lease) ~= 'table' or type(lease.id) ~= 'string' or type(lease.devices) ~= 'table'
    or type(lease.sessions) ~= 'table' then return false end
  if not (is_number(lease.issued) and is_number(lease.contact) and is_number(lease.version)
    and is_number_or_none(lease['until']) and is_number_or_none(lease.saved)
    and is_number_or_none(lease.fence)) then return false end
  for _, claim in pairs(lease.devices) do
    if type(claim) ~= 'table' or not is_number(claim.seen) or not is_number(claim['until']) then return false end
  end
  for key, session in pairs(lease.sessions) do
    if not is_session(key, session, lease.devices) then return false end
  end
  return are_all(lease.lingering, 'number') and are_all(lease.charges, 'string') and are_all(lease.replaced, 'number')
end

-- The lease as stored: what a script that swept writes back; nil if there is none. A damaged one counts as none, and is
-- set aside by a script that writes.
local function stored_lease(user)
  local document = call('HGET', LEASES, user)
  if not document then return nil end
  local decoded, lease = pcall(cjson.decode, document)
  if decoded and is_lease(lease) then return lease end
  if WRITES then
    keep_damaged('lease/' .. user, document)
    call('HDEL', LEASES, user)
    audit('damaged', user, '', '', '', 'lease', 0)
  end
  return nil
end

-- The seat that a session sits on.
local function seat_for(user, key, device)
  if limits.kind == 'node_locked' then return '@' .. string.match(key, '^[^#]+') end
  if limits.kind == 'named' or limits.share == 'user' then return user end
  if limits.share == 'user_device' then return user .. '/' .. device end
  return user .. '/' .. key
end

local function is_node_seat(seat)
  return string.sub(seat, 1, 1) == '@'
end

local function uses(lease, field, value, default)
  for _, session in pairs(lease.sessions) do
    if (session[field] or default) == value then return true end
  end
  return false
end

local function device_deadline(lease, device)
  if uses(lease, 'device', device) then return math.huge end
  return lease.devices[device]['until']
end

-- When a seat of this lease falls free; nil for one that is free already.
local function seat_deadline(user, lease, seat)
  if uses(lease, 'seat', seat, user) then return math.huge end
  local kept = math.max(seat == user and lease['until'] or 0, lease.lingering and lease.lingering[seat] or 0)
  return kept > now and kept or nil
end

-- When the whole lease ends: with its last seat. Already over: 0.
local function lease_deadline(user, lease)
  if next(lease.sessions) ~= nil then return math.huge end
  local latest = lease['until'] or 0
  for _, deadline in pairs(lease.lingering or {}) do latest = math.max(latest, deadline) end
  return latest
end

-- Notes a contact of the user on one of the lease's devices (in memory): it and a named seat are held on from then.
local function note_contact(user, lease, device, seat, contact)
  local claim, kept = lease.devices[device], contact + limits.lease_ms
  lease.contact = math.max(lease.contact, contact)
  claim.seen = math.max(claim.seen, contact)
  claim['until'] = math.max(claim['until'], kept)
  claim.unused = nil
  if limits.kind == 'named' and seat == user then lease['until'] = math.max(lease['until'] or 0, kept) end
end

-- Takes a session off a lease (in memory): its last contact was at `contact`, its claim ended at `ended`.
local function drop_session(user, lease, key, contact, ended)
  local session = lease.sessions[key]
  local seat = session.seat or user
  lease.sessions[key] = nil
  note_contact(user, lease, session.device, seat, contact)
  if limits.kind == 'floating' and limits.linger_ms > 0 and not is_node_seat(seat) then
    lease.lingering = lease.lingering or {}
    lease.lingering[seat] = math.max(lease.lingering[seat] or 0, ended + limits.linger_ms)
  end
  return session
end

-- Last contact and end of a session that its user did not end, and whether it still lives: with its node, or held.
local function session_life(key, session)
  local deadline = deadline_of(call('ZSCORE', NODES, node_of(key))) or 0
  local hold = session.hold or 0
  return math.max(deadline - limits.session_timeout_ms, math.min(hold, now)), math.min(math.max(deadline, hold), now),
    deadline > now or hold > now
end


-- The lease as stored, its dead nodes' sessions taken off (in memory) as a sweep would; nil once it has ended.
local function settled_lease(user)
  local lease = stored_lease(user)
  if not lease then return nil end
  local keys = {}
  for key in pairs(lease.sessions) do keys[#keys + 1] = key end
  for _, key in ipairs(keys) do
    local contact, ended, lives = session_life(key, lease.sessions[key])
    if not lives and not is_time_uncertain() then drop_session(user, lease, key, contact, ended) end
  end
  for seat in pairs(lease.charges or {}) do
    if not seat_deadline(user, lease, seat) then lease.charges[seat] = nil end
  end
  local deadline = lease_deadline(user, lease)
  if deadline <= now then return nil end
  return lease, deadline
end

-- A *charge* is a reservation, '+' beyond the capacity, or '', and after it each limit that the seat counts in: '!' and
-- its id. What a seat is charged to stands in `reserved`, but for the '+'.
local charging = {} -- one table: a function of Lua may use no more than 60 names from outside

charging.paid_by = function(charge)
  return string.match(charge or '', '^[^!]*')
end

charging.charged_to = function(charge)
  local found, paid = {}, charging.paid_by(charge)
  if paid ~= '' and paid ~= '+' then found[1] = paid end
  for limit in string.gmatch(charge or '', '![^!]+') do found[#found + 1] = limit end
  return found
end

-- The charge of a seat that was two: a reservation if one of them had one, and beyond the capacity only if both were.
-- It counts in the limits of both.
charging.better = function(one, other)
  local paid, second = charging.paid_by(one), charging.paid_by(other)
  if not one or paid == '+' or second ~= '+' and #second > #paid then paid = second end
  for _, id in ipairs({ one and string.match(one, '!.*') or '', string.match(other, '!.*') or '' }) do
    for limit in string.gmatch(id, '![^!]+') do
      if not string.find(paid, limit, 1, true) then paid = paid .. limit end
    end
  end
  return paid
end

-- The first reservation of `ids` (JSON list) that has a seat left; nil if there is none.
charging.own_reservation = function(seats, used, ids)
  if limits.reserve == '' then return nil end
  for _, id in ipairs(cjson.decode(ids)) do
    if seats[id] and (used[id] or 0) < seats[id] then return id end
  end
  return nil
end

-- What a seat that is held already is charged to from now on: a reservation, as soon as one has a seat left for it.
charging.standing = function(lease, seat, seats, mine)
  local paid = charging.paid_by(lease.charges and lease.charges[seat])
  if seats[paid] then return paid end
  return mine or (paid == '+' and '+' or '')
end

-- Writes a seat's deadline, or that it is free.
local function store_seat(seat, deadline, charge)
  before_seats_change()
  if not deadline then
    call('ZREM', SEATS, seat)
    for _, id in ipairs(charging.charged_to(charge)) do call('ZREM', RESERVED, id .. '/' .. seat) end
    return
  end
  local score = deadline == math.huge and '+inf' or text(deadline)
  call('ZADD', SEATS, score, seat)
  for _, id in ipairs(charging.charged_to(charge)) do call('ZADD', RESERVED, score, id .. '/' .. seat) end
end

local function forget_lease(user)
  call('HDEL', LEASES, user)
  call('HDEL', RECORDS, user)
  call('ZREM', QUARANTINE, user)
end

-- Writes a lease and one of its seats, after its sessions were written; a lease that has ended is forgotten. Returns
-- the document, or '' if it has ended.
local function store_lease(user, lease, seat)
  local deadline = seat_deadline(user, lease, seat)
  local charge = lease.charges and lease.charges[seat]
  if charge and not deadline then lease.charges[seat] = nil end
  local document = ''
  if lease_deadline(user, lease) > now then
    document = cjson.encode(lease)
    call('HSET', LEASES, user, document)
  else
    forget_lease(user)
  end
  -- A node's seat is for everybody there, so that it is not free because one lease has no session there any more.
  if deadline or not is_node_seat(seat) then store_seat(seat, deadline, charge) end
  return document
end

-- Frees a node's seat once no session, whosever and of whatever seat, is on the node in any of its lives.
local function free_node_seat(node)
  local in_use = call('ZLEXCOUNT', SESSIONS, '[' .. node .. '#', '(' .. node .. '$') > 0 -- '$' comes after '#'
  if not in_use then
    before_seats_change()
    call('ZREM', SEATS, '@' .. node)
  end
end

-- Takes a session off a lease and out of every set. Returns what it was, and the lease's document without it.
local function end_session(user, lease, key, contact, ended)
  local member, node = key .. '/' .. user, string.match(key, '^[^#]+')
  call('ZREM', SESSIONS, member)
  call('ZREM', HOLDS, member)
  local session = drop_session(user, lease, key, contact, ended)
  local document = store_lease(user, lease, session.seat or user)
  if alive(SEATS, '@' .. node) then free_node_seat(node) end
  return session, document
end

-- Devices compare without case. A lease of farmlease 0.1.0 has each in the spelling in which it came, and gives it its
-- name at the user's first contact. Lua folds ASCII only: a script asks its caller what the devices are called (answer
-- `spelled`) and is told by the next call (`spellings`: a JSON object, spelling -> name; '' before).

local UNFOLDED = '[^\1-\64\91-\127]' -- capitals and what is not ASCII: whether it is folded, only the caller can say

-- The spellings in a lease that may not be a device's name; `name` is one.
local function doubtful_spellings(lease, name)
  local found = {}
  if lease.folded then return found end
  local function look_at(spelling)
    if spelling and spelling ~= name and string.find(spelling, UNFOLDED) then found[#found + 1] = spelling end
  end
  for device, claim in pairs(lease.devices) do
    look_at(device)
    look_at(claim.replaces)
  end
  for seat in pairs(lease.lingering or {}) do look_at(string.match(seat, '^[^/]+/([^/]+)$')) end
  return found
end

-- The answer that asks for names, or nil if `names` has them all.
local function ask_names(doubtful, names)
  for _, spelling in ipairs(doubtful) do
    if not names[spelling] then return { 'spelled', cjson.encode(doubtful) } end
  end
  return nil
end
