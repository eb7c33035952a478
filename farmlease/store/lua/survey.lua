-- survey: as count, for who may not end the sessions of dead nodes: their seats count until somebody does.
-- Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  none
--
-- Answers
--   counted, held, of these quarantined, capacity, reserved seats not in use, waiting, policy version, now ms
--   none                     before a policy gave this pool its limits

if not load_limits() then return { 'none' } end
local _, _, kept = charging.reserved_seats()
return { 'counted', text(count_alive(SEATS)), text(count_alive(QUARANTINE)), text(limits.capacity),
  text(kept), text(count_alive(WAITS)), text(limits.policy), text(now) }
