-- readmit: an administrator ends a revocation: the user is let in again, and no node and no restore brings it back.
-- What was taken by it stays taken: he asks for a seat as anybody does. While a pool recovers, a node may still have to
-- tell of a revocation that the store lost: this ends that one too. Repeating it changes nothing.
--
-- Uses lib/tombstones.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--       2 note      sealed comment of the administrator, for the audit
--       3 by        sealed name of the administrator, likewise
--
-- Answers
--   readmitted, until when the user was to be kept out ms, or '' where the store has lost whether anybody was
--   none            no revocation keeps the user out

local user, note, by = ARGV[1], ARGV[2], ARGV[3]
if not load_limits() then return { 'none' } end
local graves, bar = graves_of(user), deadline_of(call('ZSCORE', BARRED, user))
if bar and bar <= now then bar = nil end
local was_barred, is_readmitted = taken_with(graves, '/'), taken_with(graves, '//')
local is_over = is_readmitted and is_readmitted >= (was_barred or 0)

-- 1. Is there anything to end?
if not bar and (is_over or not was_barred) then
  if is_over and was_barred then return { 'readmitted', text(graves['/'][2]) } end
  if not is_recovering() then return { 'none' } end
  if is_over then return { 'readmitted', '' } end
end

-- 2. It ends. Whoever knows of it may do so until it would have ended by itself.
local until_ms, fence = bar or was_barred and graves['/'][2], next_fence()
local taken = { ['//'] = math.max(until_ms or 0, now + math.max(GRAVE_KEPT, limits.quarantine_ms)) }
if not was_barred then taken['/'] = until_ms end -- its tombstone was lost
bury(user, taken, fence)
call('ZREM', BARRED, user)
audit('readmitted', user, '', '', '', '', fence, by, note)
return { 'readmitted', until_ms and text(until_ms) or '' }
