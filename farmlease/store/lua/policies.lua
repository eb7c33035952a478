-- policies: the last policies of the farm, as apply_policy kept them. Writes nothing.
--
-- KEYS  1 policies  hash    of each of the last policies: version, a blank, when it was applied (ms, '' if that is not
--                           known), a blank and the node that put it back (or '') -> the sealed policy; and version and
--                           ' by' -> sealed name of the administrator
-- ARGV  none
--
-- Answers
--   policies, then pairs: field, value

local answer = { 'policies' }
for _, word in ipairs(redis.call('HGETALL', KEYS[1])) do answer[#answer + 1] = word end
return answer
