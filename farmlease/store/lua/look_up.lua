-- look_up: one user's lease as it stands now, sessions of dead nodes taken off. Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--
-- Answers
--   lease, user index, document (JSON), expires ms or '' while sessions keep it, sealed name, sealed record, now ms
--   none

local user = ARGV[1]

if not load_limits() then return { 'none' } end
local lease, deadline = settled_lease(user)
if not lease then return { 'none' } end
return { 'lease', user, cjson.encode(lease), text_or_none(deadline),
  call('HGET', NAMES, user) or '', call('HGET', RECORDS, user) or '', text(now) }
