-- settle_names: no lease stands under a former name of its user any more: whoever reads the policy need not search for
-- one. Repeating it changes nothing.
--
-- KEYS  1 policy    string  version, ' former' if leases may stand under former names, a line feed, the sealed policy
-- ARGV  1 version   of the policy by which the leases were moved
--
-- Answers
--   settled
--   changed           another policy is in force by now

local stored = redis.call('GET', KEYS[1])
local version, rest = string.match(stored or '', '^(%d+)[^\n]*(\n.*)$')
if version ~= ARGV[1] then return { 'changed' } end
redis.call('SET', KEYS[1], version .. rest)
return { 'settled' }
