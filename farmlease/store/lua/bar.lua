-- bar: until when a revocation keeps a user out. Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--
-- Answers
--   barred, until ms
--   none

local deadline = load_limits() and deadline_of(call('ZSCORE', BARRED, ARGV[1])) or 0
if deadline <= now then return { 'none' } end
return { 'barred', text(deadline) }
