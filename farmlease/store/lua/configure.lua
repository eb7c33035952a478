-- configure: give the shard the limits of a policy, unless it has those of a newer one. A shard without any begins its
-- first epoch.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 policy    version of the policy
--       2 limits    JSON object: the pool's limits by name, times in ms
--       then what the node knows, as lib/shard.lua names it
--
-- Answers
--   configured, policy version in force
--   more                     as acquire's

local version = tonumber(ARGV[1])
local known = load_limits()
if known then
  if limits.policy >= version then return { 'configured', text(limits.policy) } end
  -- What is over by now ended by the limits it began under; but in a store of another past that is not certain.
  if not is_other_store() and sweep() then return { 'more' } end
else
  local buried = call('ZREVRANGE', OVER_NUMBERS, 0, 0, 'WITHSCORES')[2] -- where only the books were lost
  call('HSET', META, 'epoch', text(server_now), 'life', caller.life, 'blank', '1', 'buried', buried or '0')
end
for name, value in pairs(cjson.decode(ARGV[2])) do
  call('HSET', META, name, type(value) == 'number' and text(value) or value)
end
call('HSET', META, 'policy', text(version))
load_limits()
if not known then before_seats_change() end -- the use of the pool is counted from now on
audit('configured', '', '', '', '', text(version), 0)
return { 'configured', text(version) }
