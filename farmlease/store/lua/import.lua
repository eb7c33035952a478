-- import: a lease that the vendor's records already have: a device of a named pool, borrowed at a time. It counts
-- as a contact at that time. Importing it again changes nothing.
--
-- Uses lib/tombstones.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 policy        version of the policy the caller goes by
--       2 user          user index
--       3 device        machine id, folded
--       4 borrowed      ms, or '' for a licence assigned but never used
--       5 lease         id for the lease, if this makes a new one
--       6 record        sealed record of version 1 for that new lease
--       7 name          sealed user name
--       8 reservations  JSON list: of reservations and limits, as acquire's
--       9 life          of the server
--      10 by           sealed name of the administrator, for the audit
--      11 spellings    as acquire's
--
-- Answers
--   imported                 the user has this device now, or has it for longer
--   known                    the user had it already
--   future                   borrowed later than now
--   ended, when ms           the lease would have ended by now
--   denied, reason           a limit stands in the way, or an administrator who took the lease back
--   spelled, JSON list       devices of the lease stand there in these spellings: ask again with their names
--   configure, policy, more  as acquire's

local version, user, device = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local borrowed, reservations, life = tonumber(ARGV[4]), ARGV[8], string.match(ARGV[9], '^%S*')

local refused = policy_differs(version)
if refused then return refused end
if life ~= state.life or is_recovering() or lost_keys() ~= '' then return { 'denied', 'recovering' } end
if sweep() then return { 'more' } end

-- 1. Is anything of it new?
if borrowed and borrowed > now then return { 'future' } end
local lease, spelled = named_lease(user, device, ARGV[11])
if spelled then return spelled end
local claim = lease and lease.devices[device]
if claim and device_deadline(lease, device) <= now then claim = nil end
if claim and not (borrowed and (claim.unused or borrowed > claim.seen)) then return { 'known' } end
local seen = borrowed or now
if seen + limits.lease_ms <= now then return { 'ended', text(seen + limits.lease_ms) } end

-- 2. Every limit, before anything is written.
local bar = deadline_of(call('ZSCORE', BARRED, user))
if bar and bar > now then return { 'denied', 'revoked' } end
if lease and lease.back then return { 'denied', 'quarantined' } end
local charge = lease and lease.charges and lease.charges[user] or ''
if not alive(SEATS, user) then
  local seats, used, kept = charging.reserved_seats()
  local held = count_alive(SEATS)
  local counted, full = charging.counted_limits(used, reservations, '')
  if full or held >= limits.capacity then return { 'denied', 'capacity' } end
  charge = charging.own_reservation(seats, used, reservations) or ''
  if charge == '' and held + kept >= limits.capacity then return { 'denied', 'reserved' } end
  charge = charge .. counted
end
if lease and not claim then
  local most, reason = limit_within(limits.devices_per_user, MOST_DEVICES, 'device_limit')
  local devices = 0
  for other in pairs(lease.devices) do
    if device_deadline(lease, other) > now then devices = devices + 1 end
  end
  if devices >= most then return { 'denied', reason } end
end

-- 3. Take it.
if not lease then
  lease = { id = ARGV[5], issued = seen, contact = seen, version = 1, devices = {}, sessions = {}, unused = true }
  put_record(user, ARGV[6])
  call('HSET', NAMES, user, ARGV[7])
end
claim = claim or { seen = seen, ['until'] = seen }
if slot_taken_with(graves_of(user), lease.id, device) then claim.fence = next_fence() end
lease.devices[device] = claim
if borrowed then
  if lease.unused then lease.contact = seen end -- until now there was none
  if claim.unused then claim.seen = seen end
  lease.unused = nil
  note_contact(user, lease, device, user, seen)
else
  claim.unused = true
  claim['until'] = now + limits.lease_ms
  if lease.unused or not lease['until'] then lease['until'] = math.max(lease['until'] or 0, now + limits.lease_ms) end
end
charging.set(lease, user, charge)
store_lease(user, lease, user)
audit('imported', user, '', '', device, '', 0, ARGV[10])
return { 'imported' }
