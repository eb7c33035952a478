-- save: a new version of a lease's record, by compare-and-set: of two nodes that changed it at once, one succeeds.
-- Saving the same bytes again after a lost reply gives the first answer again.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--       2 node      node#incarnation, for the audit
--       3 session   session id, for the audit
--       4 lease     id of the lease the record belongs to
--       5 version   of the new record: one more than the version it was made from
--       6 record    sealed record of that version
--       7 by        sealed administrator who brings an earlier version back; '' for a node
--       then what the node knows, as lib/shard.lua names it
--
-- Answers
--   saved, version
--   conflict, version, sealed record, saved ms or '', lease document (JSON)
--                            another node has saved since, then; nothing was written
--   used                     the administrator's, and the user has a session, whose node would save over it
--   gone                     the lease ended; nothing was written
--   strange, more                      as acquire's

local user, node, session, lease_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local version, record, by = tonumber(ARGV[5]), ARGV[6], ARGV[7]

local refusal = refuse_other_store()
if refusal then return refusal end
if sweep() then return { 'more' } end
local lease = settled_lease(user)
if not lease or lease.id ~= lease_id then return { 'gone' } end
if lease.version ~= version - 1 then
  local stored = call('HGET', RECORDS, user) or ''
  if lease.version == version and stored == record then return { 'saved', text(version) } end
  return { 'conflict', text(lease.version), stored, lease.saved and text(lease.saved) or '', cjson.encode(lease) }
end
if by ~= '' and next(lease.sessions) ~= nil then return { 'used' } end

lease = stored_lease(user)
lease.version, lease.saved = version, now
call('HSET', LEASES, user, cjson.encode(lease))
call('HSET', RECORDS, user, record)
audit(by == '' and 'saved' or 'file_restored', user, node, session, '', text(version), 0, by)
return { 'saved', text(version) }
