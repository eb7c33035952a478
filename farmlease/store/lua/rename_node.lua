-- rename_node: a host has another name, and the same life: what the store has of it under the old name goes on under
-- the new one, in this moment, so that nobody else takes a seat in between. Repeating it changes nothing.
--
-- No limit changes: a seat that is called by the session or by the node is called otherwise, and no other is taken.
-- Where the old name's seat is kept by another life of that name, the new name's is one more: without room its sessions
-- end.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 old       node#incarnation, as the store knows it
--       2 new       the same incarnation of the new name
--       then what the node knows, as lib/shard.lua names it
--
-- Loss reasons: timeout, capacity
--
-- Answers
--   renamed, how many sessions moved in this call
--   gone                     the shard has nothing yet
--   strange, more            as acquire's

local MOST = 1000 -- sessions that move in one call: more than a host has, for they move together

local old, new = ARGV[1], ARGV[2]
local refusal = refuse_other_store()
if refusal then return refusal end

-- 1. What died under the old name stays dead; the notices of it move.
local deadline = deadline_of(call('ZSCORE', NODES, old))
if deadline and deadline <= now and terminate_of_node(old, 'timeout', SWEEP_SESSIONS) <= 0 then return { 'more' } end

local old_name, new_name = string.match(old, '^[^#]+'), string.match(new, '^[^#]+')
local from, to = range_of(old)
local members = call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, MOST)

-- The same seat under the new name; `key` of the session that sits on it.
local function renamed(seat, user, key)
  if seat == '@' .. old_name then return '@' .. new_name end
  if seat == user .. '/' .. key then return user .. '/' .. new .. string.sub(key, #old + 1) end
  return seat
end

-- Whether another life of the old name, another host by now, has sessions here.
local function others_there()
  local all = call('ZLEXCOUNT', SESSIONS, '[' .. old_name .. '#', '(' .. old_name .. '$') -- '$' comes after '#'
  return all > call('ZLEXCOUNT', SESSIONS, from, to)
end

local shared = others_there()

local function has_room(seat)
  if not is_node_seat(seat) or alive(SEATS, seat) then return true end
  if not shared and alive(SEATS, '@' .. old_name) then return true end -- which it takes the place of
  return count_alive(SEATS) < limits.capacity + limits.overdraft
end

local function move(member)
  local session, user = string.match(member, '^[^/]+/(.+)/([^/]+)$')
  local was, is = old .. '/' .. session, new .. '/' .. session
  local lease = stored_lease(user)
  local claim = lease and lease.sessions[was]
  local seat = claim and (claim.seat or user)
  if not claim or lease.sessions[is] or not has_room(renamed(seat, user, was)) then
    -- half of a script, or counted under the new name already, or no seat of the new name
    terminate(member, claim and not lease.sessions[is] and 'capacity' or nil)
    return 0
  end
  local hold, called = call('ZSCORE', HOLDS, member), renamed(seat, user, was)
  call('ZADD', SESSIONS, 0, is .. '/' .. user)
  if hold then call('ZADD', HOLDS, hold, is .. '/' .. user) end
  call('ZREM', SESSIONS, member)
  call('ZREM', HOLDS, member)
  lease.sessions[was], lease.sessions[is] = nil, claim
  if called ~= seat then
    local charge = lease.charges and lease.charges[seat]
    claim.seat = called
    if not is_node_seat(seat) or not shared then store_seat(seat, nil, charge) end
    if lease.charges then lease.charges[seat], lease.charges[called] = nil, charge end
  end
  store_lease(user, lease, called)
  return 1
end

-- 2. The sessions, then the notices, then the node itself.
if deadline and deadline > now then
  call('ZADD', NODES, text(math.max(deadline, deadline_of(call('ZSCORE', NODES, new)) or 0)), new)
end
call('ZADD', NODES, text(now + NOTICE_KEPT), FORMER .. old) -- of what was sent under it, a copy may come late
call('ZREM', NODES, FORMER .. new)
local moved = 0
for _, member in ipairs(members) do moved = moved + move(member) end
if #members == MOST then
  write_usage()
  return { 'more' }
end
from, to = range_of(NOTICE .. old)
local notices = call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, MOST)
for _, notice in ipairs(notices) do
  call('ZADD', SESSIONS, 0, NOTICE .. new .. string.sub(notice, #NOTICE + #old + 1))
  call('ZREM', SESSIONS, notice)
end
if #notices > 0 then call('ZADD', NODES, text(now + NOTICE_KEPT), NOTICE .. new) end
if #notices == MOST then return { 'more' } end
local awaited = call('ZSCORE', AWAITED, old)
if awaited then call('ZADD', AWAITED, 'NX', awaited, new) end
call('ZREM', AWAITED, old)
call('ZREM', NODES, NOTICE .. old)
if call('ZREM', NODES, old) == 1 or moved > 0 then
  audit('node_renamed', '', new, '', '', old_name, 0)
end
return { 'renamed', text(moved) }
