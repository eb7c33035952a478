-- reseal_policy: the same policy, of the same version, sealed with another key, unless another one is in force by now.
-- Resealing the same again after a lost reply gives the first answer again.
--
-- KEYS  1 policy    string  version, ' former' if leases may stand under former names, a line feed, the sealed policy
-- ARGV  1 version   that was read
--       2 old       sealed policy that was read
--       3 new       the same policy, sealed anew
--
-- Answers
--   resealed
--   changed

local stored = redis.call('GET', KEYS[1])
local head, sealed = string.match(stored or '', '^(%d+[^\n]*)\n(.*)$')
if not head or string.match(head, '^%d+') ~= ARGV[1] then return { 'changed' } end
if sealed == ARGV[3] then return { 'resealed' } end
if sealed ~= ARGV[2] then return { 'changed' } end
redis.call('SET', KEYS[1], head .. '\n' .. ARGV[3])
return { 'resealed' }
