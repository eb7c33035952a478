-- tombstones: what was taken back, by an administrator or because its user has another name, so that no receipt, no
-- restart and no older copy brings it back. Part of the scripts whose header names this file.
--
-- A user's *graves* are one JSON object: claim -> {fence of the taking, until (ms), and perhaps the index that it moved
-- to}. A grave beats what anybody knows of its claim from before that fence; what was granted later is another claim.
-- It stays until the latest deadline that a receipt of the claim may have, and at least seven days; what ends by itself
-- needs none. With each change the graves get the shard's next number: a node asks for those above the last that it
-- has. None is dropped before its time.
--
-- Claims:  ''                 the user's name was erased
--          /                  the user is kept out by a revocation, until the grave ends
--          //                 that revocation was ended: the user was let in again
--          lease id           the lease was taken from under this index
--          lease id/          its seat is quarantined, until the grave ends
--          lease id/device    the slot moved to another device, or was released with no quarantine left: it is gone,
--                             whatever a clock that is set back says
--          lease id/device/   the device was released: its slot is kept for a quarantine after its last use
--
-- Loss reasons: returned, replaced

local GRAVE_KEPT = 7 * 24 * 3600 * 1000 -- ms at least
local GRAVES_LOOKED_AT = 8 -- users per call whose graves may be over

local function are_graves(graves)
  if type(graves) ~= 'table' then return false end
  for _, grave in pairs(graves) do
    if type(grave) ~= 'table' or not is_number(grave[1]) or not is_number(grave[2]) then return false end
  end
  return true
end

-- A user's graves. Those that do not decode count as none, and are set aside: a node that has them puts them back. One
-- with a fence that was never given counts as none.
local function graves_of(user)
  local found = call('HGET', OVER, user)
  if not found then return {} end
  local decoded, graves = pcall(cjson.decode, found)
  if decoded and are_graves(graves) then
    for claim, grave in pairs(graves) do
      if grave[1] > server_now + FENCE_AHEAD then graves[claim] = nil end
    end
    return graves
  end
  if WRITES then
    keep_damaged('over/' .. user, found)
    call('HDEL', OVER, user)
  end
  return {}
end

-- The fence by which a claim was taken; nil if it was not, or too long ago for anybody to know of the claim.
local function taken_with(graves, claim)
  local grave = graves[claim]
  return grave and grave[2] > now and grave[1] or nil
end

-- Whether a claim was taken back after this fence was given: what is known of it from then is void.
local function taken_since(graves, claim, fence)
  return fence <= (taken_with(graves, claim) or -1)
end

-- Whether a revocation, known by its grave, was not ended since.
local function keeps_out(graves)
  local barred = taken_with(graves, '/')
  return barred ~= nil and barred > (taken_with(graves, '//') or -1)
end

-- The fence of a taking: above all that were given.
local function next_fence()
  state.fence = math.max(state.fence + 1, now)
  return state.fence
end

-- When the last claim of a lease without sessions ends: of the lease itself or of one of its devices.
local function last_deadline(user, lease)
  local latest = lease_deadline(user, lease)
  for device in pairs(lease.devices) do latest = math.max(latest, device_deadline(lease, device)) end
  return math.max(latest, now + GRAVE_KEPT)
end

local function drop_old(graves)
  for claim, grave in pairs(graves) do
    if grave[2] <= now then graves[claim] = nil end
  end
  return next(graves) ~= nil
end

-- Forgets graves that are over, of a bounded number of users: from where the call before stopped.
local function forget_graves()
  local found = call('ZRANGEBYSCORE', OVER_NUMBERS, '(' .. text(state.graves_seen), '+inf', 'WITHSCORES', 'LIMIT', 0,
    GRAVES_LOOKED_AT)
  for at = 1, #found, 2 do
    local user, graves = found[at], graves_of(found[at])
    if not drop_old(graves) then
      call('HDEL', OVER, user)
      call('ZREM', OVER_NUMBERS, user)
    end
  end
  state.graves_seen = #found == 2 * GRAVES_LOOKED_AT and tonumber(found[#found]) or 0
end

local function store_graves(user, graves)
  forget_graves()
  if drop_old(graves) then
    local top = call('ZREVRANGE', OVER_NUMBERS, 0, 0, 'WITHSCORES')[2] -- the books may have been lost
    state.buried = math.max(state.buried, tonumber(top or 0)) + 1
    call('HSET', OVER, user, cjson.encode(graves))
    call('ZADD', OVER_NUMBERS, text(state.buried), user)
  end
  call('HSET', META, 'buried', text(state.buried), 'graves_seen', text(state.graves_seen), 'fence', text(state.fence))
end

-- Remembers that claims (claim -> until ms) were taken with this fence.
local function bury(user, claims, fence)
  local graves = graves_of(user)
  for claim, until_ms in pairs(claims) do graves[claim] = { fence, until_ms } end
  store_graves(user, graves)
end

-- The fence of the last grant of a lease; of one from before leases had one, the time of its last contact.
local function fence_of(lease)
  local latest = lease.fence or lease.contact
  for _, session in pairs(lease.sessions) do latest = math.max(latest, session.fence) end
  return latest
end

-- The fence by which the slot of a device was taken, moved or released; nil if it was not.
local function slot_taken_with(graves, lease_id, device)
  local place = lease_id .. '/' .. device
  local moved, released = taken_with(graves, place), taken_with(graves, place .. '/')
  return moved and released and math.max(moved, released) or moved or released
end

-- What is left of a device's slot, known as `claim` of this lease; nil if it was moved to another device. A contact
-- after the taking is of a session that the store still counts: it had ended by then.
local function remaining_slot(graves, lease_id, device, claim)
  local known, place = claim.fence or claim.seen, lease_id .. '/' .. device
  if taken_since(graves, place, known) then return nil end
  if taken_since(graves, place .. '/', known) then
    local last_use = math.min(claim.seen, taken_with(graves, place .. '/'))
    claim['until'] = claim.unused and 0 or math.min(claim['until'], last_use + limits.quarantine_ms)
  end
  return claim
end

-- Why a session of this lease is over, and the fence of that taking: its lease was taken back since its grant, or the
-- slot of its device. nil if neither was. One that moved to the device since has it by a later fence than its own.
local function taking_of(graves, lease, session)
  if taken_since(graves, lease.id, session.fence) then return 'returned', taken_with(graves, lease.id) end
  local claim, taken = lease.devices[session.device], slot_taken_with(graves, lease.id, session.device)
  if taken and math.max(session.fence, claim and claim.fence or 0) <= taken then return 'replaced', taken end
  return nil
end

-- Gives a lease without sessions back (in the store): its seats are free, but for the quarantine of one that was used.
-- Returns until when that lasts, ms, or nil.
local function give_back(user, lease)
  for seat in pairs(lease.lingering or {}) do store_seat(seat, nil, lease.charges and lease.charges[seat]) end
  lease.lingering = nil
  if lease['until'] then
    lease['until'] = lease.unused and 0 or math.min(lease['until'], lease.contact + limits.quarantine_ms)
    lease.back = true
  end
  store_lease(user, lease, user)
  if lease_deadline(user, lease) <= now then return nil end
  call('ZADD', QUARANTINE, text(lease['until']), user)
  return lease['until']
end
