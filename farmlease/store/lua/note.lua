-- note: a decision that the policy took without a seat: use without a licence, or none at all. Counted and
-- audited, once for each session.
--
-- Uses lib/farm.lua
--
-- KEYS  1 audit     stream  such decisions of the whole farm
--       2 counts    hash    event -> how many of them were ever written to the audit, and sizes, see lib/farm.lua
--       3 noted     zset    node#incarnation/session/user/event -> until when it is not counted again
--       4 names     hash    user index -> sealed user name
-- ARGV  1 event     restricted or denied
--       2 user      user index
--       3 node      node#incarnation
--       4 session   session id
--       5 detail    reason of a denial, or ''
--       6 name      sealed user name, or ''
--
-- Answers
--   noted, how many of these there were

local event, user, node, session, detail = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local key = node .. '/' .. session .. '/' .. user .. '/' .. event
local lost_noted = has_lost(KEYS[2], 'noted', redis.call('ZCARD', KEYS[3]))
local lost_names = has_lost(KEYS[2], 'names', redis.call('HLEN', KEYS[4]))

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now), 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[3], gone)
end
if redis.call('ZADD', KEYS[3], string.format('%.0f', now + 24 * 3600 * 1000), key) == 1 then
  redis.call('HINCRBY', KEYS[2], event, 1)
  if ARGV[6] ~= '' then redis.call('HSET', KEYS[4], user, ARGV[6]) end
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', 100000, '*', 'event', event, 'user', user, 'node', node,
    'session', session, 'detail', detail)
end
if lost_noted then audit_loss(KEYS[1], 'noted', node) end
if lost_names then audit_loss(KEYS[1], 'names', node) end
note_size(KEYS[2], 'noted', redis.call('ZCARD', KEYS[3]), lost_noted)
note_size(KEYS[2], 'names', redis.call('HLEN', KEYS[4]), lost_names)
return { 'noted', redis.call('HGET', KEYS[2], event) or '0' }
