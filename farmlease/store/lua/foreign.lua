-- foreign: a page of a key's members: which did farmlease not write? Writes nothing.
--
-- Uses lib/shapes.lua
-- Uses lib/policy.lua
--
-- KEYS  1 set       the key, of any type
-- ARGV  1 name      last word of its name, that of a key of the farm itself with farm_ before it
--       2 kind      its type
--       3 cursor    '0' to begin, then what the page before answered
--       4 count     about how many members to a page
--
-- Answers
--   page, next cursor ('0': the last one), how many are foreign, the first of them ('': none)

local name, kind, cursor, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local foreign, first, following = 0, '', '0'

local function look_at(member, is_ours)
  if is_ours then return end
  foreign = foreign + 1
  if foreign == 1 then first = string.sub(member, 1, 100) end
end

if kind == 'hash' then
  local found = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', count)
  following = found[1]
  for at = 1, #found[2], 2 do look_at(found[2][at], SHAPES[name](found[2][at], found[2][at + 1])) end
elseif kind == 'zset' then
  local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'LIMIT', cursor, count)
  for _, member in ipairs(found) do look_at(member, SHAPES[name](member)) end
  if #found == count then following = string.format('%.0f', tonumber(cursor) + count) end
elseif kind == 'stream' then
  local found = redis.call('XRANGE', KEYS[1], cursor == '0' and '-' or cursor, '+', 'COUNT', count)
  for _, entry in ipairs(found) do look_at(entry[1], is_entry(entry[2])) end
  if #found == count then following = '(' .. found[#found][1] end
else
  local value = redis.call('GET', KEYS[1])
  look_at(value or '', not value or policy_parts(value) ~= nil)
end
return { 'page', following, string.format('%.0f', foreign), first }
