-- guests: how many sessions of a pool are alive on a host, in any of its lives? Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 node      name of the node
--       2 most      sessions looked at, at most
--
-- Answers
--   guests, how many

local node = ARGV[1]
local answer = { 'guests', '0' }
if not load_limits() then return answer end
local members = call('ZRANGEBYLEX', SESSIONS, '[' .. node .. '#', '(' .. node .. '$', 'LIMIT', 0, ARGV[2])
local living = 0
for _, member in ipairs(members) do
  local key, user = string.match(member, '^(.+)/([^/]+)$')
  local lease = user and stored_lease(user)
  local session = lease and lease.sessions[key]
  if session then
    local _, _, lives = session_life(key, session)
    if lives then living = living + 1 end
  end
end
answer[2] = text(living)
return answer
