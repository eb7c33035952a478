-- charges: what a seat is counted in beside the pool: a reservation, and the limits of those who sit on it. Part of
-- every script of a shard. One table, for a function of Lua may use no more than 60 names from outside.
--
-- A *charge* is a reservation, '+' beyond the capacity, or '', and after it each limit that the seat counts in: '!' and
-- its id. What a seat is charged to stands in `reserved`, but for the '+'.
local charging = {}

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
