-- apply_policy: replace the farm's policy, unless another administrator did meanwhile.
-- Applying the same bytes again after a lost reply gives the first answer again. The version in force may be applied
-- anew: that writes again what the farm's keys have lost. An administrator who applies one has seen which of them lost
-- members, see lib/farm.lua. The last ten policies are kept.
--
-- Uses lib/farm.lua
-- Uses lib/policy.lua
--
-- KEYS  1 policy    string  version, ' former' if leases may stand under former names, a line feed, the sealed policy
--       2 audit     stream  decisions about the whole farm
--       3 counts    hash    event -> how many of them were ever written to the audit
--       4 pools     hash    every pool there ever was -> version of the last policy that had it
--       5 policies  hash    the last policies, as policies.lua has them
-- ARGV  1 expected  version that was read, 0 if there was none that decodes
--       2 version   of the new policy, greater than that; the same, to write it again
--       3 sealed    the sealed policy
--       4 names     JSON list: its pools
--       5 node      that puts back what the store has lost, or ''
--       6 by        sealed name of the administrator, for the audit
--       7 former    '1' if leases may stand under former names of their users by this policy, else ''
--
-- Answers
--   applied
--   changed, version  of the policy that is in force instead

local new = ARGV[2] .. (ARGV[7] == '1' and ' former' or '') .. '\n' .. ARGV[3]
local stored = redis.call('GET', KEYS[1])
if stored == new then return { 'applied' } end
local version, _, sealed_before = policy_parts(stored)
version = version or '0'
if version ~= ARGV[1] then return { 'changed', version } end

local KEPT = 10 -- policies, the one in force among them

local function remember(number, sealed, at, node, by)
  redis.call('HSET', KEYS[5], number .. ' ' .. at .. ' ' .. node, sealed)
  if by ~= '' then redis.call('HSET', KEYS[5], number .. ' by', by) end
end

-- Forgets all but the newest: each version with all of its fields.
local function forget_oldest()
  local fields, numbers = {}, {}
  for _, field in ipairs(redis.call('HKEYS', KEYS[5])) do
    local number = tonumber(string.match(field, '^%d+')) or 0
    if not fields[number] then numbers[#numbers + 1], fields[number] = number, {} end
    table.insert(fields[number], field)
  end
  table.sort(numbers)
  for at = 1, #numbers - KEPT do
    for _, field in ipairs(fields[numbers[at]]) do redis.call('HDEL', KEYS[5], field) end
  end
end

redis.call('SET', KEYS[1], new)
for _, name in ipairs(cjson.decode(ARGV[4])) do redis.call('HSET', KEYS[4], name, ARGV[2]) end
if ARGV[5] == '' then redis.call('HDEL', KEYS[3], '#names', '#noted', '#nodes', '#rings') end
local event = ARGV[5] == '' and version ~= ARGV[2] and 'policy_applied' or 'policy_put_back'
redis.call('HINCRBY', KEYS[3], event, 1)
if is_of_type(KEYS[5], 'hash') or is_of_type(KEYS[5], 'none') then -- else doctor tells
  local kept = redis.call('HLEN', KEYS[5])
  local lost = has_lost(KEYS[3], 'policies', kept)
  local is_new = version ~= ARGV[2]
  if sealed_before and is_new and kept == 0 then -- of a farmlease that kept none
    remember(version, sealed_before, '', '', '')
  end
  local clock = redis.call('TIME')
  local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
  if is_new or kept == 0 then remember(ARGV[2], ARGV[3], string.format('%.0f', now), ARGV[5], ARGV[6]) end
  forget_oldest()
  note_size(KEYS[3], KEYS[2], 'policies', redis.call('HLEN', KEYS[5]), lost, ARGV[5])
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'event', event, 'user', '', 'node', ARGV[5], 'session', '',
  'detail', ARGV[2], 'by', ARGV[6])
return { 'applied' }
