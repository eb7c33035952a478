-- acquire: may this session of this user start? Takes or finds the user's lease and its sealed record.
-- Asking again for the same session (same node, incarnation and session) changes nothing and gives the same answer;
-- from another device it moves the session there, with its fence and its hold, or is denied and changes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 policy        version of the policy the caller goes by
--       2 user          user index
--       3 node          node#incarnation
--       4 session       session id, unique on the node
--       5 device        the farm's name, or an outside machine id, folded
--       6 lease         id for the lease, if this takes a new one
--       7 record        sealed record of version 1 for that new lease
--       8 name          sealed user name
--       9 reservations  JSON list: ids of the reservations this session may use, and of the limits that it counts in
--      10 wait          ms for which a place in the queue is kept until asked again; 0: do not wait
--      11 spellings     JSON object: what devices of the lease are called, see lib/leases.lua; '' before that was asked
--      12 former        JSON list: other indexes of the user, under which a lease may stand by a former name; '': none
--       then what the node knows, as lib/shard.lua names it
--
-- Answers
--   granted, lease id, issued ms, expires ms, fence, record version, sealed record, '1' if beyond the capacity, now ms,
--                            lease document (JSON), index under which the lease stands
--   again, (the same)        asked before: nothing was taken
--   moved, (the same)        had its seat, and has it on this device now
--   waiting, places ahead    has a place in the queue, kept for `wait`
--   denied, reason, retry ms or '', held, capacity, blocking (JSON list of {device or session, node, until},
--                            those of this user only), id of the limit that `held` and `capacity` are of, or ''
--   lapsed                   the node is not alive here: send its heartbeat, then ask again
--   configure                the shard does not have this policy's limits yet: configure it, then ask again
--   policy                   the shard has a newer policy: read it, plan anew
--   strange                  this is not the store that the node knew: recover, then ask again
--   spelled, JSON list       devices of the lease stand there in these spellings: ask again with their names
--   more                     more dead sessions or lapsed places than one call may end: ask again at once

local version, user, node, session = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local device, lease_id, record, name = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local reservations, wait, spellings = ARGV[9], tonumber(ARGV[10]), ARGV[11]
local former = ARGV[12] ~= '' and cjson.decode(ARGV[12]) or {}
local key = node .. '/' .. session
local member = key .. '/' .. user

-- A grant holds: a named lease from its last contact, any other for as long as its node may be silent.
local function granted(word, lease, document, stored)
  local seat = lease.sessions[key].seat or user
  local named = limits.kind == 'named' and seat == user
  local expires = named and lease['until'] or lease.contact + limits.session_timeout_ms + limits.linger_ms
  return { word, lease.id, text(lease.issued), text(expires), text(lease.sessions[key].fence),
    text(lease.version), stored or '',
    lease.charges and charging.paid_by(lease.charges[seat]) == '+' and '1' or '0', text(now), document, user }
end

-- A session that is denied keeps no place in the queue: a place that cannot be filled would keep others out.
local function denied(reason, retry, held, capacity, blocking, limit)
  count_denial(reason)
  audit('denied', user, node, session, device, reason, 0)
  if user == ARGV[2] then call('HSETNX', NAMES, user, name) end -- it is sealed for this index
  leave_queue(member)
  return { 'denied', reason, text_or_none(retry), text(held), text(capacity), cjson.encode(blocking or {}),
    limit or '' }
end

-- The user's lease, and with it the index that this goes on with: where this session is counted, else that of the
-- present name, else that of a former one. A place in the queue under a former name is this session's.
-- Second, the answer to give instead, as named_lease has it.
local function find_lease()
  local lease, instead = named_lease(user, device, spellings)
  if instead or #former == 0 then return lease, instead end
  for _, other in ipairs(former) do
    if lease and lease.sessions[key] then break end
    local theirs, unnamed = named_lease(other, device, spellings)
    if unnamed then return nil, unnamed end
    if theirs and (not lease or theirs.sessions[key]) then lease, user = theirs, other end
  end
  member = key .. '/' .. user
  for _, other in ipairs(former) do
    local place = call('ZSCORE', QUEUE, key .. '/' .. other)
    if place and other ~= user then
      call('ZADD', QUEUE, place, member)
      call('ZADD', WAITS, text(now + wait), member)
      leave_queue(key .. '/' .. other)
    end
  end
  return lease
end

-- Until when a revocation keeps the user out, under whichever name it was; nil if none does.
local function barred_until()
  local bar = deadline_of(call('ZSCORE', BARRED, ARGV[2])) or 0
  for _, other in ipairs(former) do bar = math.max(bar, deadline_of(call('ZSCORE', BARRED, other)) or 0) end
  return bar > now and bar or nil
end

local function node_using(lease, used)
  for other, claim in pairs(lease.sessions) do
    if claim.device == used then return string.match(other, '^[^#]+') end
  end
  return nil
end

local function over_device_limit(lease)
  local most, reason = limit_within(limits.devices_per_user, MOST_DEVICES, 'device_limit')
  if count_of(lease.devices) < most then return nil end
  if lease.devices[device] and device_deadline(lease, device) > now then return nil end
  local blocking, earliest = {}, math.huge
  for other in pairs(lease.devices) do
    local deadline = device_deadline(lease, other)
    if deadline > now then
      earliest = math.min(earliest, deadline)
      blocking[#blocking + 1] = { device = other, node = node_using(lease, other),
        ['until'] = deadline ~= math.huge and deadline or nil }
    end
  end
  if #blocking < most then return nil end
  return denied(reason, earliest, #blocking, most, blocking)
end

local function over_session_limit(lease)
  local most, reason = limit_within(limits.sessions_per_user, MOST_USES, 'session_limit')
  local count = count_of(lease.sessions)
  if count < most then return nil end
  local blocking = {}
  for other in pairs(lease.sessions) do
    local at, id = string.match(other, '^([^#]+)#[^/]*/(.+)$')
    blocking[#blocking + 1] = { session = id, node = at }
  end
  return denied(reason, math.huge, count, most, blocking)
end

local function wait_in_queue(ahead)
  local is_new = not call('ZSCORE', QUEUE, member)
  if is_new then
    local places = places_of(user)
    if places >= MOST_PLACES then return denied('user_limit', math.huge, places, MOST_PLACES) end
    local last = call('ZREVRANGE', QUEUE, 0, 0, 'WITHSCORES')
    call('ZADD', QUEUE, text((tonumber(last[2]) or 0) + 1), member)
  end
  call('ZADD', WAITS, text(now + wait), member)
  if is_new then
    audit('queued', user, node, session, device, text(ahead), 0)
    if user == ARGV[2] then call('HSETNX', NAMES, user, name) end
  end
  return { 'waiting', text(ahead) }
end

-- The seat that a session gives up by moving to `seat`, at this instant; nil if others keep it, or it is the same.
local function seat_left(lease, claim, seat)
  local old = claim.seat or user
  if old == seat or is_node_seat(old) or limits.kind == 'floating' and limits.linger_ms > 0 then return nil end
  for other, session in pairs(lease.sessions) do
    if other ~= key and (session.seat or user) == old then return nil end
  end
  return old
end

-- Why there is no seat: they are all held, or what is left is kept for others or was given back too recently.
local function no_seat(held, kept)
  local most = limits.capacity + limits.overdraft
  local reason = kept > 0 and held < most and held + kept >= most and 'reserved' or 'capacity'
  local first = call('ZRANGEBYSCORE', SEATS, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if reason == 'capacity' and first[1] and alive(QUARANTINE, first[1]) then reason = 'quarantined' end
  return denied(reason, deadline_of(first[2]) or math.huge, held, limits.capacity)
end

-- A limit has no seat left for this session. It does not wait: nobody behind it is kept out of the seats that are left.
local function over_limit(limit, held, most)
  local first = math.huge
  for _, entry in ipairs(call('ZRANGEBYSCORE', RESERVED, '(' .. text(now), '+inf')) do
    if node_of(entry) == limit then
      first = deadline_of(call('ZSCORE', RESERVED, entry))
      break
    end
  end
  return denied('capacity', first, held, most, nil, limit)
end

-- Returns the charge of a seat that may be taken ('': none), or nil and the answer instead. `left`: a seat that falls
-- free for it, as a session moves.
local function find_seat(lease, seat, left)
  if limits.kind == 'node_locked' then return '' end
  local seats, used, kept = charging.reserved_seats()
  local before = lease.charges and lease.charges[not alive(SEATS, seat) and left or seat] or ''
  local counted, full, allowed = charging.counted_limits(used, reservations, before)
  if full then return nil, over_limit(full, used[full], allowed) end
  if left and not alive(SEATS, seat) then return charging.paid_by(before) .. counted end
  local mine = charging.own_reservation(seats, used, reservations)
  if alive(SEATS, seat) then return charging.standing(lease, seat, seats, mine) .. counted end
  local held, most = count_alive(SEATS), limits.capacity + limits.overdraft
  if mine and held < most then return mine .. counted end
  local ahead = places_ahead(member)
  if not ahead then return nil, { 'more' } end
  if most - kept - held > ahead then return (held + kept < limits.capacity and '' or '+') .. counted end
  if wait > 0 and limits.queue_ms > 0 then return nil, wait_in_queue(ahead) end
  return nil, no_seat(held, kept)
end

-- 1. Is the caller up to date, and its node alive?
local refused = policy_differs(version)
if refused then return refused end
if is_other_store() then return send_to_recover(node) end
if not alive(NODES, node) then return { 'lapsed' } end

-- 2. What is no longer alive does not count.
if sweep() then return { 'more' } end
local lease, spelled = find_lease()
if spelled then return spelled end
local moving = lease and lease.sessions[key]
if moving and moving.device == device then
  call('HSET', META, 'fence', text(state.fence)) -- for a WAIT after this call, if the first answer was lost
  return granted('again', lease, cjson.encode(lease), call('HGET', RECORDS, user))
end

-- 3. Every limit, before anything is written.
if is_recovering() then
  if wait > 0 and limits.queue_ms > 0 then return wait_in_queue(call('ZCARD', QUEUE)) end
  return denied('recovering', state.recovering, 0, limits.capacity)
end
local bar = barred_until()
if bar then return denied('revoked', bar, 0, limits.capacity) end
local fresh = not lease
local mended = fresh and mended_until(ARGV[2])
for _, other in ipairs(former) do mended = mended or fresh and mended_until(other) end
if mended then return denied('recovering', mended, 0, limits.capacity) end
lease = lease or { id = lease_id, issued = now, contact = now, version = 1, devices = {}, sessions = {} }
local denial = over_device_limit(lease) or not moving and over_session_limit(lease)
if denial then return denial end
local seat = seat_for(user, key, device)
local charge, instead = find_seat(lease, seat, moving and seat_left(lease, moving, seat))
if not charge then return instead end

-- 4. Take it.
local given = math.max(state.fence + 1, now) -- of a move too: the session keeps its own, lease and device have this
local fence = moving and moving.fence or given
if moving then drop_session(user, lease, key, now, now) end
for other in pairs(lease.devices) do
  if lease.devices[other]['until'] <= now and device_deadline(lease, other) <= now then lease.devices[other] = nil end
end
lease.back, lease.unused, lease.fence = nil, nil, given
lease.devices[device] = lease.devices[device] or { seen = now, ['until'] = now }
lease.devices[device].fence = given
note_contact(user, lease, device, seat, now)
lease.sessions[key] = { device = device, started = moving and moving.started or now, fence = fence,
  seat = seat ~= user and seat or nil, hold = moving and moving.hold }
if lease.lingering then lease.lingering[seat] = nil end
call('ZADD', SESSIONS, 0, member)
charging.set(lease, seat, charge)
if moving and (moving.seat or user) ~= seat then store_lease(user, lease, moving.seat or user) end
local document = store_lease(user, lease, seat)
if fresh then
  put_record(user, record)
  call('HSET', NAMES, user, name)
end
call('ZREM', QUARANTINE, user)
leave_queue(member)
state.fence = given
local event = moving and 'moved' or fresh and 'acquired' or 'joined'
audit(event, user, node, session, device, charging.paid_by(charge) == '+' and 'overdraft' or '', fence)
return granted(moving and 'moved' or 'granted', lease, document, fresh and record or call('HGET', RECORDS, user))
