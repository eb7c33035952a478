-- put_back_record: a node has a later version of a lease's record than this store, which had it and lost it; or there
-- is none, and an administrator puts an empty one there. What is replaced is kept. Repeating it changes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--       2 node      node#incarnation, for the audit
--       3 lease     id of the lease the record belongs to
--       4 version   of the record
--       5 record    sealed record of that version
--       then what the node knows, as lib/shard.lua names it
--
-- Answers
--   put
--   known                    it was so before
--   later                    the store has a later version by now
--   gone                     the lease ended
--   strange, more            as acquire's

local user, node, lease_id = ARGV[1], ARGV[2], ARGV[3]
local version, record = tonumber(ARGV[4]), ARGV[5]

local refusal = refuse_other_store()
if refusal then return refusal end
if sweep() then return { 'more' } end
local lease = settled_lease(user)
if not lease or lease.id ~= lease_id then return { 'gone' } end
if lease.version > version then return { 'later' } end
local there = call('HGET', RECORDS, user)
if lease.version == version and there == record then return { 'known' } end

lease = stored_lease(user)
if lease.version ~= version then
  lease.version, lease.saved = version, nil
  call('HSET', LEASES, user, cjson.encode(lease))
end
put_record(user, record)
audit('put_back', user, node, '', '', text(version), 0)
return { 'put' }
