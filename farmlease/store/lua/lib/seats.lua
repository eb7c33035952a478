-- seats: which seats are left, and for whom: reservations, and the queue before those who come later. Part of every
-- script of a shard.

local SWEEP_PLACES = 1000 -- lapsed places forgotten per call

-- How many seats each reservation has, how many of them are in use, and how many are kept because they are not.
local function reserved_seats()
  local used, kept = {}, 0
  if limits.reserve == '' then return {}, used, kept end
  for _, entry in ipairs(call('ZRANGEBYSCORE', RESERVED, '(' .. text(now), '+inf')) do
    local id = node_of(entry)
    used[id] = (used[id] or 0) + 1
  end
  local seats = cjson.decode(limits.reserve)
  for id, number in pairs(seats) do kept = kept + math.max(0, number - (used[id] or 0)) end
  return seats, used, kept
end

-- The first reservation of `ids` (JSON list) that has a seat left; nil if there is none.
local function own_reservation(seats, used, ids)
  if limits.reserve == '' then return nil end
  for _, id in ipairs(cjson.decode(ids)) do
    if seats[id] and (used[id] or 0) < seats[id] then return id end
  end
  return nil
end

-- What a seat that is held already is charged to from now on: a reservation, as soon as one has a seat left for it.
local function standing_charge(lease, seat, seats, mine)
  local charge = lease.charges and lease.charges[seat] or ''
  if seats[charge] then return charge end
  return mine or (charge == '+' and '+' or '')
end

-- Charges a seat (lease in memory) to a reservation, to the overdraft ('+') or to nothing ('').
local function set_charge(lease, seat, charge)
  local before = lease.charges and lease.charges[seat] or ''
  if before == charge then return end
  if before ~= '' and before ~= '+' then call('ZREM', RESERVED, before .. '/' .. seat) end
  lease.charges = lease.charges or {}
  lease.charges[seat] = charge ~= '' and charge or nil
end

local function leave_queue(member)
  call('ZREM', QUEUE, member)
  call('ZREM', WAITS, member)
end

-- How many wait before this session, after the places of those who stopped asking are gone; nil if there may be more of
-- those than one call may forget.
local function places_ahead(member)
  if call('ZCARD', QUEUE) == 0 then return 0 end
  local gone = call('ZRANGEBYSCORE', WAITS, '-inf', text(now), 'LIMIT', 0, SWEEP_PLACES)
  for _, place in ipairs(gone) do leave_queue(place) end
  if #gone == SWEEP_PLACES then return nil end
  return call('ZRANK', QUEUE, member) or call('ZCARD', QUEUE)
end
