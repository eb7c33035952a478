-- shard: what every script of a shard begins with: its keys, the time and the limits. audit_usage.lua,
-- leases.lua, sweep.lua, seats.lua and epoch.lua follow.
--
-- A claim is membership in a set until a deadline. It is alive while its deadline is greater than `now`, by this
-- server's clock; whether somebody has swept it away yet makes no difference to any answer. (`now` runs `skew` behind
-- that clock once it was seen to leap ahead: see epoch.lua.)
--
-- KEYS  1 meta        hash    limits of the pool, `policy` (version), `fence` (last one given), `audited` (how
--                             many decisions were ever written down), `tally` (the hour under way, see
--                             audit_usage.lua), and what the store knows of its own past (see epoch.lua)
--       2 leases      hash    user index -> lease document (JSON, see leases.lua)
--       3 records     hash    user index -> sealed record
--       4 names       hash    user index -> sealed user name
--       5 seats       zset    seat -> deadline in ms; +inf while sessions keep it. A seat is a user index, alone or
--                             with /device or /node#incarnation/session after it, or @node
--       6 nodes       zset    node#incarnation -> deadline in ms, and #node#incarnation -> until when word is kept
--       7 sessions    zset    score 0: node#incarnation/session/user index, and for each session that was taken
--                             away and whose node has not acknowledged that yet
--                             #node#incarnation/session/user index/fence/reason
--       8 queue       zset    node#incarnation/session/user index -> number in order of arrival
--       9 audit       stream  every decision, written by the script that took it
--      10 waits       zset    member of queue -> until when its place is kept unless it asks again
--      11 holds       zset    node#incarnation/session/user index -> until when it is held, whatever its node does
--      12 reserved    zset    reservation id/seat -> the seat's deadline
--      13 quarantine  zset    user index -> deadline of a seat that was given back
--      14 barred      zset    user index -> until when a revocation keeps the user out
--      15 awaited     zset    node#incarnation -> 0: has yet to restore what it has in this epoch, 1: has done so
--      16 usage       zset    tally of an hour that is over -> beginning of that hour (ms), see audit_usage.lua

local META, LEASES, RECORDS, NAMES, SEATS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local NODES, SESSIONS, QUEUE, AUDIT = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local WAITS, HOLDS, RESERVED, QUARANTINE, BARRED = KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local AWAITED, USAGE = KEYS[15], KEYS[16]

local AUDIT_LENGTH = 100000
local WORD = '#' -- begins what is kept for a node that was silent; no node's name does

local call = redis.call
local clock = call('TIME')
local raw = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) -- what this server's clock shows
local now = raw
local limits = nil

local function text(number)
  return string.format('%.0f', number)
end

-- A deadline as an answer gives it: '' for one that no clock ends.
local function text_or_none(deadline)
  return deadline ~= math.huge and text(deadline) or ''
end

-- A zset score as redis.call gives it; nil where there is none.
local function deadline_of(score)
  if not score then return nil end
  if score == 'inf' then return math.huge end
  return tonumber(score)
end

local function alive(set, member)
  local deadline = deadline_of(call('ZSCORE', set, member))
  return deadline ~= nil and deadline > now
end

local function count_alive(set)
  return call('ZCOUNT', set, '(' .. text(now), '+inf')
end

-- Every member that begins with `prefix` and a slash.
local function range_of(prefix)
  return '[' .. prefix .. '/', '(' .. prefix .. '0' -- '0' is the character after '/'
end

local function load_limits()
  local found = call('HMGET', META, 'policy', 'kind', 'share', 'capacity', 'overdraft', 'devices_per_user',
    'sessions_per_user', 'lease_ms', 'quarantine_ms', 'session_timeout_ms', 'linger_ms', 'max_hold_ms', 'queue_ms',
    'replacements', 'reserve', 'fence', 'epoch', 'life', 'recovering', 'skew', 'line', 'vouched', 'taken', 'blank',
    'audited', 'tally', 'opened')
  if not found[1] then return false end
  limits = {
    policy = tonumber(found[1]), kind = found[2], share = found[3], capacity = tonumber(found[4]),
    overdraft = tonumber(found[5]), devices = tonumber(found[6]), sessions = tonumber(found[7]),
    lease = tonumber(found[8]), quarantine = tonumber(found[9]), session_timeout = tonumber(found[10]),
    linger = tonumber(found[11]), max_hold = tonumber(found[12]), queue = tonumber(found[13]),
    replacements = tonumber(found[14]), reserve = found[15] or '', fence = tonumber(found[16] or 0),
    epoch = tonumber(found[17] or 0), life = found[18] or '', recovering = tonumber(found[19] or 0),
    skew = tonumber(found[20] or 0), line = tonumber(found[21] or 0), vouched = tonumber(found[22] or 0),
    taken = tonumber(found[23] or 0), blank = found[24] == '1', audited = tonumber(found[25] or 0),
    tally = found[26] or '', opened = tonumber(found[27] or 0),
  }
  now = raw - limits.skew
  return true
end

-- Whether nobody has counted the time on for so long that the clock may have leapt: see epoch.lua.
local function is_doubtful()
  return limits.vouched > 0 and now - math.max(limits.vouched, limits.taken) > limits.session_timeout / 2
end

-- The answer that sends a caller away whose policy is not the shard's, or nil.
local function policy_differs(version)
  if not load_limits() or limits.policy < version then return { 'configure' } end
  if limits.policy > version then return { 'policy' } end
  return nil
end
