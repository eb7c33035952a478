-- nodes: which nodes are alive? Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  none
--
-- Answers
--   nodes, then each node#incarnation

local answer = { 'nodes' }
if not load_limits() then return answer end
for _, node in ipairs(call('ZRANGEBYSCORE', NODES, '(' .. text(now), '+inf', 'LIMIT', 0, MOST_NODES)) do
  if string.sub(node, 1, 1) ~= NOTICE then answer[#answer + 1] = node end
end
return answer
