-- restored: this node has restored all that it has. The recovery window is over once every node known before has.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 node      node#incarnation
--       2 epoch     in which it has
--       3 knew      '1' if it knew of an epoch before: without one such node, the nodes of before are unknown
--
-- Answers
--   settled
--   strange         this epoch is over

local node = ARGV[1]
if not load_limits() or state.epoch ~= tonumber(ARGV[2]) then return { 'strange' } end
if is_recovering() then
  call('ZADD', AWAITED, 1, node)
  if ARGV[3] == '1' and call('ZCOUNT', AWAITED, 0, 0) == 0 then
    call('HSET', META, 'recovering', '0')
    audit('recovered', '', node, '', '', text(state.epoch), 0)
  end
end
return { 'settled' }
