-- release_device: free a user's device slot in a named pool. One that was used stays taken until its last use is long
-- enough ago. Repeating it changes nothing.
--
-- Uses lib/tombstones.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--       2 device    the farm's name, or an outside machine id, folded
--       3 by        sealed name of the administrator, for the audit
--       4 spellings as acquire's
--
-- Answers
--   released, until when the slot stays taken ms or '' if it is free
--   in_use          sessions of the user run on it: end them first
--   none            the user's lease is not on this device
--   spelled, JSON list   devices of the lease stand there in these spellings: ask again with their names
--   more            as acquire's

local user, device = ARGV[1], ARGV[2]
if not load_limits() or limits.kind ~= 'named' then return { 'none' } end
if sweep() then return { 'more' } end -- a session that ends later would take the slot anew
local lease, spelled = named_lease(user, device, ARGV[4])
if spelled then return spelled end
local claim = lease and lease.devices[device]
if not claim or device_deadline(lease, device) <= now then return { 'none' } end
if uses(lease, 'device', device) then return { 'in_use' } end

local place, known_until = lease.id .. '/' .. device, math.max(claim['until'], now + GRAVE_KEPT)
local until_ms = claim.unused and 0 or math.min(claim['until'], claim.seen + limits.quarantine_ms)
local is_new = until_ms <= now or until_ms < claim['until']
if until_ms > now then
  claim['until'], place = until_ms, place .. '/'
else
  lease.devices[device] = nil
end
call('HSET', LEASES, user, cjson.encode(lease))
if is_new then bury(user, { [place] = known_until }, next_fence()) end
audit('device_released', user, '', '', device, '', 0, ARGV[3])
return { 'released', until_ms > now and text(until_ms) or '' }
