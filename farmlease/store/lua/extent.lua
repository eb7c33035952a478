-- extent: how far back an audit goes, and how much was cut off. Writes nothing.
--
-- KEYS  1 audit     stream  decisions
--       2 counts    hash    a pool's meta, with `audited`; or the farm's: event -> how many were ever written
-- ARGV  none
--
-- Answers
--   extent, entries there are, entries there ever were, id of the oldest or ''

local length = redis.call('XLEN', KEYS[1])
local ever = redis.call('HGET', KEYS[2], 'audited')
if not ever then
  ever = 0
  for at, number in ipairs(redis.call('HVALS', KEYS[2])) do ever = ever + (at <= 1000 and tonumber(number) or 0) end
end
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return { 'extent', string.format('%.0f', length), string.format('%.0f', ever), oldest and oldest[1] or '' }
