-- sealed: the sealed record of one user, and what it belongs to, as stored. Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--
-- Answers
--   sealed, record or '', lease id or '', record version or '0'

local user = ARGV[1]
local lease = stored_lease(user)
return { 'sealed', call('HGET', RECORDS, user) or '', lease and lease.id or '', text(lease and lease.version or 0) }
