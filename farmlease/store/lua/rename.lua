-- rename: a lease without sessions moves from one index of its user to another, as the name is read by the policy now.
-- The record was sealed anew for the new index; it is put in place by compare-and-set: one that was changed meanwhile
-- stays. Everything else moves as it stands: seats, devices, quarantine, reservations, and a revocation that keeps the
-- user out. A tombstone keeps receipts from bringing the old index back. Nothing is joined: where the new index has a
-- lease of its own, both stay. Repeating it changes nothing.
--
-- Uses lib/tombstones.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 old       index that the lease stands under
--       2 new       index that it moves to
--       3 lease     id of the lease that was read; '' if the user has none and only a revocation is to move
--       4 version   of its record that was read
--       5 record    the same record, sealed for the new index
--       6 name      sealed user name, for the new index
--       7 note      sealed former name, for the audit
--       8 by        sealed name of the administrator, likewise
--
-- Answers
--   renamed                  now, or since before
--   in_use                   the lease has sessions, or a revocation would meet those of the new index: it stays until
--                            they have ended
--   taken                    the new index has another lease: both stay
--   changed                  the lease or its record is another one by now: read it, then ask again
--   none                     there is nothing under the old index
--   recovering, until ms     which sessions there are is not known before
--   more                     as acquire's

local old, new, lease_id, version = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if not load_limits() then return { 'none' } end
if is_recovering() then return { 'recovering', text(state.recovering) } end
if sweep() then return { 'more' } end

-- 1. Is it what was read, and is there room for it?
local lease, there = settled_lease(old), settled_lease(new)
local bar = deadline_of(call('ZSCORE', BARRED, old))
if bar and bar <= now then bar = nil end
local kept_out = math.max(bar or 0, deadline_of(call('ZSCORE', BARRED, new)) or 0)
if not lease and not bar then return { there and there.id == lease_id and 'renamed' or 'none' } end
if (lease and lease.id or '') ~= lease_id or lease and lease.version ~= version then return { 'changed' } end
if lease and next(lease.sessions) ~= nil then return { 'in_use' } end
if lease and there and there.id ~= lease.id then return { 'taken' } end
if bar and there and next(there.sessions) ~= nil then return { 'in_use' } end

-- The same seat under the new index: a seat is an index, alone or with what it covers after it, or a node's.
local function moved(seat)
  if seat == old then return new end
  if string.sub(seat, 1, #old + 1) == old .. '/' then return new .. string.sub(seat, #old + 1) end
  return seat
end

local function move_member(set, from, to)
  local score = call('ZSCORE', set, from)
  if not score or from == to then return end
  call('ZADD', set, score, to)
  call('ZREM', set, from)
end

local function moved_fields(fields)
  local result = {}
  for seat, value in pairs(fields) do result[moved(seat)] = value end
  return next(result) and result or nil
end

-- What was taken of the lease goes with it: its devices that were released or replaced, and that it was given back.
local function move_graves()
  local left, moving, any = graves_of(old), graves_of(new), false
  for claim, grave in pairs(left) do
    if string.sub(claim, 1, #lease.id + 1) == lease.id .. '/' then moving[claim], any = grave, true end
  end
  if lease.back then moving[lease.id], any = { lease.fence, last_deadline(old, lease) }, true end
  if any then store_graves(new, moving) end
end

-- 2. The lease: its documents, then everything that names its index.
local function move_lease()
  local seats = { [old] = true }
  for seat in pairs(lease.lingering or {}) do seats[seat] = true end
  for seat in pairs(lease.charges or {}) do seats[seat] = true end
  local charges = lease.charges or {}
  if lease.lingering then lease.lingering = moved_fields(lease.lingering) end
  if lease.charges then lease.charges = moved_fields(lease.charges) end
  lease.fence = next_fence() -- above the tombstones of both indexes: it may move back one day
  call('HSET', LEASES, new, cjson.encode(lease))
  call('HSET', RECORDS, new, ARGV[5])
  move_graves()
  for seat in pairs(seats) do
    local charge = charges[seat]
    move_member(SEATS, seat, moved(seat))
    for _, id in ipairs(charging.charged_to(charge)) do
      move_member(RESERVED, id .. '/' .. seat, id .. '/' .. moved(seat))
    end
  end
  move_member(QUARANTINE, old, new)
end

-- A copy of the lease that a node put back under the old index goes: it has moved already.
local function drop_copy()
  for seat in pairs(lease.lingering or {}) do store_seat(seat, nil, lease.charges and lease.charges[seat]) end
  store_seat(old, nil, lease.charges and lease.charges[old])
end

if lease then
  local graves = graves_of(old)
  graves[lease.id] = { next_fence(), last_deadline(old, lease), new }
  store_graves(old, graves)
  if there then drop_copy() else move_lease() end
  forget_lease(old)
end

-- 3. A revocation follows its user, and so does its tombstone: a store that loses both gets them back under this index.
-- Under the old one it has ended: no node that knows of it there puts it back.
if kept_out > now then
  call('ZADD', BARRED, text(kept_out), new)
  call('ZREM', BARRED, old)
  local left, moving, fence = graves_of(old), graves_of(new), next_fence() -- above the lease's own
  if bar or left['/'] then left['/'], left['//'] = nil, { fence, kept_out } end
  moving['/'] = { fence, kept_out }
  store_graves(old, left)
  store_graves(new, moving)
end
call('HSET', NAMES, new, ARGV[6])
audit('renamed', new, '', '', '', old, 0, ARGV[8], ARGV[7])
return { 'renamed' }
