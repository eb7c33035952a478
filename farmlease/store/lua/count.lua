-- count: how many seats of the pool are held now.
--
-- KEYS  the shard's keys, as prelude.lua names them
-- ARGV  none
--
-- Answers
--   counted, held, capacity, policy version, now ms
--   none                     no policy gave this pool its limits yet
--   more                     as acquire's

if not load_limits() then return { 'none' } end
if sweep() then return { 'more' } end
return { 'counted', text(call('ZCOUNT', SEATS, '(' .. text(now), '+inf')), text(limits.capacity), text(limits.policy),
  text(now) }
