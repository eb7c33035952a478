-- configure: give the shard the limits of a policy, unless it has those of a newer one. A shard without any begins its
-- first epoch.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 policy    version of the policy
--       2 limits    JSON object: the pool's limits by name, times in ms
--       3 epoch     that the node knows; 0: none
--       4 seen      highest fence that it has seen
--       5 life      of the server
--       6 expected  ms: what the node thinks the time is; 0: it does not know
--       7 line      of counts that this belongs to
--
-- Answers
--   configured, policy version in force
--   more                     as acquire's

local version = tonumber(ARGV[1])
local caller = { epoch = tonumber(ARGV[3]), seen = tonumber(ARGV[4]), life = ARGV[5],
  expected = tonumber(ARGV[6]), line = tonumber(ARGV[7]) }
local known = load_limits()
if known then
  if limits.policy >= version then return { 'configured', text(limits.policy) } end
  -- What is over by now ended by the limits it began under; but in a store of another past nothing is over for sure.
  if not estranged(caller) and sweep() then return { 'more' } end
else
  call('HSET', META, 'epoch', text(raw), 'life', caller.life, 'blank', '1')
end
for name, value in pairs(cjson.decode(ARGV[2])) do
  call('HSET', META, name, type(value) == 'number' and text(value) or value)
end
call('HSET', META, 'policy', text(version))
load_limits()
if not known then seats_change() end -- the use of the pool is counted from now on
audit('configured', '', '', '', '', text(version), 0)
return { 'configured', text(version) }
