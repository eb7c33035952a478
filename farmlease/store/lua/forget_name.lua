-- forget_name: erase a user's name from what was decided about them without a seat.
--
-- Uses lib/farm.lua
--
-- KEYS  1 audit     stream  such decisions of the whole farm
--       2 counts    hash    event -> how many of them were ever written to the audit
--       3 names     hash    user index -> sealed user name
-- ARGV  1 user      user index
--       2 by        sealed name of the administrator, for the audit
--
-- Answers
--   erased, '1' if there was a name

local user = ARGV[1]
local lost = has_lost(KEYS[2], 'names', redis.call('HLEN', KEYS[3]))
if redis.call('HDEL', KEYS[3], user) == 0 then return { 'erased', '' } end
redis.call('HINCRBY', KEYS[2], 'forgotten', 1)
if lost then audit_loss(KEYS[1], 'names', '') end
note_size(KEYS[2], 'names', redis.call('HLEN', KEYS[3]), lost)
redis.call('XADD', KEYS[1], 'MAXLEN', '~', 100000, '*', 'event', 'forgotten', 'user', user, 'node', '', 'session', '',
  'detail', 'name', 'by', ARGV[2])
return { 'erased', '1' }
