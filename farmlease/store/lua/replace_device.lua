-- replace_device: for a broken notebook: a user's device slot in a named pool moves to another machine at once, as it
-- stands, a few times in 30 days. Sessions on the old device end. Repeating it changes nothing.
--
-- Uses lib/tombstones.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--       2 old       device whose slot is to move, folded
--       3 new       device it moves to, likewise
--       4 override  '1': also beyond the pool's replacements in 30 days
--       5 note      sealed comment of the administrator, for the audit
--       6 by        sealed name of the administrator, likewise
--       7 spellings as acquire's
--
-- Loss reasons: replaced
--
-- Answers
--   replaced        the new device has the slot (now, or since before)
--   limit, when ms or ''   no replacement is left until then; '': this pool allows none
--   known           the user's lease is on the new device already: the old one can only be released
--   none            the user's lease is not on the old device
--   spelled, JSON list     devices of the lease stand there in these spellings: ask again with their names
--   more            more sessions than one call may end: ask again at once

local user, old, new, override = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local SPAN = 30 * 24 * 3600 * 1000

if not load_limits() or limits.kind ~= 'named' then return { 'none' } end
if sweep() then return { 'more' } end
local lease, spelled = named_lease(user, old, ARGV[7])
if spelled then return spelled end
if not lease then return { 'none' } end

local function on(device)
  return lease.devices[device] and device_deadline(lease, device) > now
end

if not on(old) then return { on(new) and lease.devices[new].replaces == old and 'replaced' or 'none' } end
if on(new) then return { 'known' } end

-- 1. Is a replacement left?
local recent = {}
for _, at in ipairs(lease.replaced or {}) do
  if at + SPAN > now then recent[#recent + 1] = at end
end
local beyond = #recent >= limits.replacements
if beyond and override ~= '1' then
  return { 'limit', limits.replacements > 0 and text(recent[#recent - limits.replacements + 1] + SPAN) or '' }
end

-- 2. Sessions on the old device end: a last use, from which the slot is held on.
if terminate_of_lease(user, lease, 'replaced', now, old) then return { 'more' } end

-- 3. The slot moves, unless the lease was over with those sessions, as it is if it began when the pool was floating.
lease = stored_lease(user)
if lease then
  recent[#recent + 1] = now
  lease.replaced = recent
  lease.devices[new] = lease.devices[old]
  lease.devices[new].replaces = old
  lease.devices[old] = nil
  local fence, known_until = next_fence(), math.max(lease.devices[new]['until'], now + GRAVE_KEPT)
  lease.devices[new].fence = fence -- above every taking of the device that it moves to
  call('HSET', LEASES, user, cjson.encode(lease))
  bury(user, { [lease.id .. '/' .. old] = known_until }, fence)
end
local instead = 'instead of ' .. old .. (beyond and ', override' or '')
audit('device_replaced', user, '', '', new, instead, 0, ARGV[6], ARGV[5])
return { 'replaced' }
