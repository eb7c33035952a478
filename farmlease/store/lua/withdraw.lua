-- withdraw: an administrator takes a lease from its user: gives it back for them, or revokes it. Its sessions end;
-- their nodes learn it at the next heartbeat. The seat of a named lease that was used stays quarantined until its last
-- use is long enough ago; any other is free at once. Repeating it changes nothing.
--
-- Uses lib/tombstones.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--       2 reason    returned or revoked; a revocation also keeps the user out for the time of a quarantine
--       3 note      sealed comment of the administrator, for the audit
--       4 by        sealed name of the administrator, likewise
--
-- Loss reasons: returned, revoked: as `reason` says
--
-- Answers
--   withdrawn, until when the seat is quarantined ms or '', until when the user is kept out ms or '', '1' unless all of
--                            that was so before
--   more            more sessions than one call may end: ask again at once
--   none            the user has no lease here, and is not kept out by this: the pool has no quarantine

local user, reason, note, by = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not load_limits() then return { 'none' } end
if sweep() then return { 'more' } end
local lease = settled_lease(user)
local keeps_out = reason == 'revoked' and (limits.quarantine_ms > 0 or alive(BARRED, user))
if not lease and not keeps_out then return { 'none' } end

-- 1. Its sessions end, wherever they are.
local changed = lease ~= nil and not lease.back
if lease and terminate_of_lease(user, lease, reason, now) then return { 'more' } end

-- 2. Its seats are free, but for the quarantine of one that was used. No receipt brings it back.
local taken, quarantine = {}, nil
if lease then
  local left = stored_lease(user)
  if changed then
    local held = now -- by a session that a host may bring back
    for _, session in pairs(lease.sessions) do held = math.max(held, session.hold or 0) end
    lease.sessions = {}
    taken[lease.id] = math.max(last_deadline(user, left or lease), held)
    quarantine = left and give_back(user, left)
    taken[lease.id .. '/'] = quarantine
  elseif left and lease_deadline(user, left) > now then
    quarantine = left['until']
  end
end

-- 3. A user whose lease was revoked stays out.
local bar = ''
if keeps_out then
  call('ZREMRANGEBYSCORE', BARRED, '-inf', text(now))
  local known = deadline_of(call('ZSCORE', BARRED, user))
  changed = changed or not known
  bar = text(known or now + limits.quarantine_ms)
  call('ZADD', BARRED, bar, user)
  if changed then taken['/'] = tonumber(bar) end
end
if changed then
  bury(user, taken, next_fence())
  audit(reason, user, '', '', '', '', 0, by, note)
end
return { 'withdrawn', quarantine and text(quarantine) or '', bar, changed and '1' or '0' }
