-- acquire: may this session of this user start? Takes or finds the user's lease and its sealed record.
-- Asking again for the same session (same node, incarnation and session) changes nothing and gives the same answer.
--
-- KEYS  the shard's keys, as prelude.lua names them
-- ARGV  1 policy    version of the policy the caller goes by
--       2 user      user index
--       3 node      node#incarnation
--       4 session   session id, unique on the node
--       5 device    the farm's name, or an outside machine id
--       6 lease     id for the lease, if this takes a new one
--       7 record    sealed record of version 1 for that new lease
--       8 name      sealed user name
--
-- Answers
--   granted, lease id, issued ms, expires ms, fence, record version, sealed record, now ms
--   again, (the same)        asked before: nothing was taken
--   denied, reason, retry ms or '', held, capacity, blocking (JSON list of {device or session, node, until},
--                            those of the asking user only)
--   lapsed                   the node is not alive here: send its heartbeat, then ask again
--   configure                the shard does not have this policy's limits yet: configure it, then ask again
--   policy                   the shard has a newer policy: read it, plan anew
--   more                     more dead sessions than one call may end: ask again at once

local version, user, node, session = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local device, lease_id, record, name = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local key = node .. '/' .. session

local function granted(word, lease)
  return { word, lease.id, text(lease.issued), text(lease['until']), text(lease.sessions[key].fence),
    text(lease.version), call('HGET', RECORDS, user) or '', text(now) }
end

local function denied(reason, retry, held, capacity, blocking)
  audit('denied', user, node, session, device, reason, 0)
  return { 'denied', reason, retry ~= math.huge and text(retry) or '', text(held), text(capacity),
    cjson.encode(blocking) }
end

local function node_using(lease, used)
  for other, session in pairs(lease.sessions) do
    if session.device == used then return string.match(other, '^[^#]+') end
  end
  return nil
end

local function over_device_limit(lease)
  if limits.devices == 0 then return nil end
  local blocking, earliest, known = {}, math.huge, false
  for other in pairs(lease.devices) do
    local deadline = device_deadline(lease, other)
    if deadline > now then
      known = known or other == device
      earliest = math.min(earliest, deadline)
      blocking[#blocking + 1] = { device = other, node = node_using(lease, other),
        ['until'] = deadline ~= math.huge and deadline or nil }
    end
  end
  if known or #blocking < limits.devices then return nil end
  return denied('device_limit', earliest, #blocking, limits.devices, blocking)
end

local function over_session_limit(lease)
  if limits.sessions == 0 then return nil end
  local blocking = {}
  for other in pairs(lease.sessions) do
    local at, id = string.match(other, '^([^#]+)#[^/]*/(.+)$')
    blocking[#blocking + 1] = { session = id, node = at }
  end
  if #blocking < limits.sessions then return nil end
  return denied('session_limit', math.huge, #blocking, limits.sessions, blocking)
end

local function over_capacity()
  local held = call('ZCOUNT', SEATS, '(' .. text(now), '+inf')
  if held < limits.capacity + limits.overdraft then return nil end
  local first = call('ZRANGEBYSCORE', SEATS, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return denied('capacity', deadline_of(first[2]) or math.huge, held, limits.capacity, {})
end

-- 1. Is the caller up to date, and its node alive?
local refused = policy_differs(version)
if refused then return refused end
if not node_alive(node) then return { 'lapsed' } end

-- 2. What is no longer alive does not count.
if sweep() then return { 'more' } end
local lease = settled_lease(user)
if lease and lease.sessions[key] then return granted('again', lease) end

-- 3. Every limit, before anything is written.
local fresh = not lease
lease = lease or { id = lease_id, issued = now, contact = now, ['until'] = now, version = 1,
  devices = {}, sessions = {} }
local denial = over_device_limit(lease) or over_session_limit(lease) or (fresh and over_capacity())
if denial then return denial end

-- 4. Take it.
local fence = math.max(limits.fence + 1, now)
for other in pairs(lease.devices) do
  if device_deadline(lease, other) <= now then lease.devices[other] = nil end
end
lease.devices[device] = lease.devices[device] or { seen = now, ['until'] = now }
note_contact(lease, device, now)
lease.sessions[key] = { device = device, started = now, fence = fence }
store_lease(user, lease)
if fresh then
  call('HSET', RECORDS, user, record)
  call('HSET', NAMES, user, name)
end
call('ZADD', SESSIONS, 0, key .. '/' .. user)
call('HSET', META, 'fence', text(fence))
audit(fresh and 'acquired' or 'joined', user, node, session, device, '', fence)
return granted('granted', lease)
