-- prelude: what every script of a shard begins with: its keys, the time, the limits, and the operations on sets of
-- claims.
--
-- A claim is membership in a set until a deadline. It is alive while its deadline is greater than `now`, by this
-- server's clock; whether somebody has swept it away yet makes no difference to any answer.
--
-- KEYS  1 meta      hash    limits of the pool, `policy` (version), `fence` (last one given)
--       2 leases    hash    user index -> lease document (JSON, see below)
--       3 records   hash    user index -> sealed record
--       4 names     hash    user index -> sealed user name
--       5 seats     zset    seat member -> deadline in ms; +inf while sessions keep it
--       6 nodes     zset    node#incarnation -> deadline in ms, and #node#incarnation -> until when word is kept for it
--       7 sessions  zset    score 0: node#incarnation/session/user index, and for each session that was taken away and
--                           whose node has not acknowledged that yet #node#incarnation/session/user index/fence/reason
--       8 queue     zset    waiting sessions, in order of arrival
--       9 audit     stream  every decision, written by the script that took it
--
-- Lease document: id, issued, contact (last contact), until, version (of the record), devices {name -> {seen, until}},
-- sessions {node#incarnation/session -> {device, started, fence}}; all times in ms. A device or seat with a session has
-- no deadline; the one in `until` counts once its last session has ended. It never gets earlier: a policy with a
-- shorter lease is for the contacts that come.

local META, LEASES, RECORDS, NAMES, SEATS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local NODES, SESSIONS, QUEUE, AUDIT = KEYS[6], KEYS[7], KEYS[8], KEYS[9]

local SWEEP_SESSIONS = 64 -- dead sessions ended per call, so that no call is long
local SWEEP_LEASES = 8 -- lapsed leases forgotten per call
local WORD_KEPT = 7 * 24 * 3600 * 1000 -- ms a node may be silent and still be told what it lost
local AUDIT_LENGTH = 100000
local WORD = '#' -- begins what is kept for a node that was silent; no node's name does

local call = redis.call
local clock = call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local limits = nil

local function text(number)
  return string.format('%.0f', number)
end

-- A zset score as redis.call gives it; nil where there is none.
local function deadline_of(score)
  if not score then return nil end
  if score == 'inf' then return math.huge end
  return tonumber(score)
end

local function load_limits()
  local found = call('HMGET', META, 'policy', 'capacity', 'overdraft', 'devices_per_user', 'sessions_per_user',
    'lease_ms', 'quarantine_ms', 'session_timeout_ms', 'fence')
  if not found[1] then return false end
  limits = {
    policy = tonumber(found[1]), capacity = tonumber(found[2]), overdraft = tonumber(found[3]),
    devices = tonumber(found[4]), sessions = tonumber(found[5]), lease = tonumber(found[6]),
    quarantine = tonumber(found[7]), session_timeout = tonumber(found[8]), fence = tonumber(found[9] or 0),
  }
  return true
end

-- The answer that sends a caller away whose policy is not the shard's, or nil.
local function policy_differs(version)
  if not load_limits() or limits.policy < version then return { 'configure' } end
  if limits.policy > version then return { 'policy' } end
  return nil
end

local function audit(event, user, node, session, device, detail, fence)
  call('XADD', AUDIT, 'MAXLEN', '~', AUDIT_LENGTH, '*', 'event', event, 'user', user, 'node', node,
    'session', session, 'device', device, 'detail', detail, 'fence', text(fence))
end

local function node_deadline(node)
  return deadline_of(call('ZSCORE', NODES, node))
end

local function node_alive(node)
  local deadline = node_deadline(node)
  return deadline ~= nil and deadline > now
end

local function has_session_on(lease, device)
  for _, session in pairs(lease.sessions) do
    if session.device == device then return true end
  end
  return false
end

-- When the seat of a lease falls free: never while a session keeps it.
local function seat_deadline(lease)
  if next(lease.sessions) ~= nil then return math.huge end
  return lease['until']
end

local function device_deadline(lease, device)
  if has_session_on(lease, device) then return math.huge end
  return lease.devices[device]['until']
end

-- Notes a contact of the user on one of the lease's devices (in memory): both are held on from then.
local function note_contact(lease, device, contact)
  lease.contact = math.max(lease.contact, contact)
  lease['until'] = math.max(lease['until'], contact + limits.lease)
  local claim = lease.devices[device]
  claim.seen = math.max(claim.seen, contact)
  claim['until'] = math.max(claim['until'], contact + limits.lease)
end

-- Takes a session off a lease (in memory): its last contact was at `contact`.
local function drop_session(lease, key, contact)
  local session = lease.sessions[key]
  lease.sessions[key] = nil
  note_contact(lease, session.device, contact)
end

-- The lease as stored: what a script writes back. Sessions of dead nodes are still in it; ending those is for `sweep`,
-- with all that goes with it.
local function stored_lease(user)
  return cjson.decode(call('HGET', LEASES, user))
end

-- The lease as stored, its dead nodes' sessions taken off (in memory), and its seat's deadline; nil once that is past.
-- Who stores it again must have swept first: those sessions must not be gone from it and still stand in SESSIONS.
local function settled_lease(user)
  local document = call('HGET', LEASES, user)
  if not document then return nil end
  local lease = cjson.decode(document)
  local keys = {}
  for key in pairs(lease.sessions) do keys[#keys + 1] = key end
  for _, key in ipairs(keys) do
    local deadline = node_deadline(string.match(key, '^[^/]+')) or 0
    if deadline <= now then drop_session(lease, key, deadline - limits.session_timeout) end
  end
  local deadline = seat_deadline(lease)
  if deadline <= now then return nil end
  return lease, deadline
end

local function store_lease(user, lease)
  call('HSET', LEASES, user, cjson.encode(lease))
  local deadline = seat_deadline(lease)
  call('ZADD', SEATS, deadline == math.huge and '+inf' or text(deadline), user)
end

local function range_of(prefix)
  return '[' .. prefix .. '/', '(' .. prefix .. '0' -- '0' is the character after '/'
end

-- Leaves word for a node that the session granted with `fence` was taken from it.
local function leave_word(node, member, fence, reason)
  call('ZADD', SESSIONS, 0, WORD .. member .. '/' .. text(fence) .. '/' .. reason)
  call('ZADD', NODES, text(now + WORD_KEPT), WORD .. node)
end

-- Forgets the word left for a node that never asked. Returns what is left of the budget.
local function forget_word(node, budget)
  local from, to = range_of(node)
  local members = call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, budget)
  for _, member in ipairs(members) do call('ZREM', SESSIONS, member) end
  return budget - #members
end

-- Ends at most `budget` sessions of a node that dies at `deadline`; its last contact was its last heartbeat. Leaves
-- word for the node if there is a `reason`. Returns what is left of the budget.
local function end_sessions_of(node, deadline, reason, budget)
  local from, to = range_of(node)
  local members = call('ZRANGEBYLEX', SESSIONS, from, to, 'LIMIT', 0, budget)
  for _, member in ipairs(members) do
    local session, user = string.match(member, '^[^/]+/(.+)/([^/]+)$')
    local document = call('HGET', LEASES, user)
    local lease = document and cjson.decode(document)
    local key = node .. '/' .. session
    local claim = lease and lease.sessions[key]
    if claim then -- somebody else's hand in the data must not stop the whole pool
      drop_session(lease, key, deadline - limits.session_timeout)
      store_lease(user, lease)
      if reason then leave_word(node, member, claim.fence, reason) end
      audit('ended', user, node, session, claim.device, reason or 'reboot', claim.fence)
    end
    call('ZREM', SESSIONS, member)
  end
  return budget - #members
end

-- Ends the sessions of dead nodes and forgets lapsed leases, a bounded number. True if there may be more of the former,
-- which a caller that counts must see ended first; a lapsed lease never counts, so those can wait.
local function sweep()
  local budget = SWEEP_SESSIONS
  local dead = call('ZRANGEBYSCORE', NODES, '-inf', text(now), 'WITHSCORES', 'LIMIT', 0, SWEEP_SESSIONS)
  for i = 1, #dead, 2 do
    local node = dead[i]
    if string.sub(node, 1, 1) == WORD then
      budget = forget_word(node, budget)
    else
      budget = end_sessions_of(node, tonumber(dead[i + 1]), 'timeout', budget)
    end
    if budget <= 0 then return true end
    call('ZREM', NODES, node)
  end
  local lapsed = call('ZRANGEBYSCORE', SEATS, '-inf', text(now), 'LIMIT', 0, SWEEP_LEASES)
  for _, user in ipairs(lapsed) do
    call('ZREM', SEATS, user)
    call('HDEL', LEASES, user)
    call('HDEL', RECORDS, user)
    audit('lapsed', user, '', '', '', '', 0)
  end
  return #dead >= 2 * SWEEP_SESSIONS
end
