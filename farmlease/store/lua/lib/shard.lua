-- shard: what every script of a shard begins with: its keys, the time, the limits, what the calling node knows, and the
-- audit with the hourly usage. epoch.lua, leases.lua and seats.lua follow.
--
-- A claim is membership in a set until a deadline. It is alive while its deadline is greater than `now`, by this
-- server's clock; whether a sweep has removed it yet makes no difference to any answer. (`now` runs `skew` behind that
-- clock after the clock jumped ahead: see epoch.lua.)
--
-- KEYS  1 meta        hash    the pool's limits by name, `policy` (version), `fence` (last one given), `audited` (how
--                             many decisions were ever audited), `tally` (the present hour, see below), and the state
--                             of epoch and time (see epoch.lua)
--       2 leases      hash    user index -> lease document (JSON, see leases.lua)
--       3 records     hash    user index -> sealed record
--       4 names       hash    user index -> sealed user name
--       5 seats       zset    seat -> deadline in ms; +inf while sessions keep it. A seat is a user index, alone or
--                             with /device or /node#incarnation/session after it, or @node
--       6 nodes       zset    node#incarnation -> deadline in ms, and #node#incarnation -> until when its notices are
--                             kept
--       7 sessions    zset    score 0: node#incarnation/session/user index; and a notice for each session that was
--                             terminated and whose node has not acknowledged that yet:
--                             #node#incarnation/session/user index/fence/reason
--       8 queue       zset    node#incarnation/session/user index -> number in order of arrival
--       9 audit       stream  every decision, written by the script that took it
--      10 waits       zset    member of queue -> until when its place is kept unless it asks again
--      11 holds       zset    node#incarnation/session/user index -> until when it is held, whatever its node does
--      12 reserved    zset    id of a reservation or a limit/seat -> the seat's deadline
--      13 quarantine  zset    user index -> deadline of a seat that was given back
--      14 barred      zset    user index -> until when a revocation keeps the user out
--      15 awaited     zset    node#incarnation -> 0: has yet to restore what it has in this epoch, 1: has done so
--      16 usage       zset    tally of an hour that is over -> beginning of that hour (ms)
--      17 over        hash    user index -> what was taken back from the user (JSON, see tombstones.lua)
--      18 over_numbers  zset  user index -> number of the last change of that
--      19 damaged     hash    what did not decode and was set aside -> ms, a blank and the bytes, see epoch.lua
--
-- Sessions and devices have any id that hosts and vendors give them. Python encodes / and # in them, and decodes what
-- comes back: in every key, argument and answer an id holds neither, so that names can be joined with both.
--
-- What the node knows: the last arguments of each script whose header says so.
-- ARGV  1 epoch             of the shard, as the node knows it; 0: none
--       2 seen              highest fence that the node has seen
--       3 life              of the server; then, after blanks, those from whose servers a Cluster moved the shard's
--                           slot here, as the node has made sure of
--       4 expected          ms: the node's estimate of the shard's time; 0: it has none
--       5 clock_generation  of that estimate, see epoch.lua

local META, LEASES, RECORDS, NAMES, SEATS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local NODES, SESSIONS, QUEUE, AUDIT = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local WAITS, HOLDS, RESERVED, QUARANTINE, BARRED = KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local AWAITED, USAGE, OVER, OVER_NUMBERS, DAMAGED = KEYS[15], KEYS[16], KEYS[17], KEYS[18], KEYS[19]

local AUDIT_LENGTH = 100000
local NOTICE = '#' -- begins what is kept for a silent node; no node's name begins so
local FORMER = '##' -- begins a former name of a node whose host was renamed: what comes under it comes too late
-- Fields of meta that are no numbers.
local TEXTS = { kind = true, share = true, reserve = true, limit = true, life = true, blank = true, tally = true,
  present = true, missed = true }
-- Limits without which nothing can be decided.
local NEEDED = { 'capacity', 'overdraft', 'devices_per_user', 'sessions_per_user', 'lease_ms', 'quarantine_ms',
  'session_timeout_ms', 'max_hold_ms', 'linger_ms', 'queue_ms' }
local FENCE_AHEAD = 366 * 24 * 3600 * 1000 -- ms beyond the clock from which on a fence is damage; Python has the same

local call = redis.call
local clock = call('TIME')
local server_now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now = server_now
local limits, state = nil, nil -- of the pool, by the policy; of the shard itself
local caller = { epoch = tonumber(ARGV[#ARGV - 4]), seen = tonumber(ARGV[#ARGV - 3]), life = ARGV[#ARGV - 2],
  expected = tonumber(ARGV[#ARGV - 1]), clock_generation = tonumber(ARGV[#ARGV]) }
if caller.seen and caller.seen > server_now + FENCE_AHEAD then caller.seen = 0 end -- no fence that was given
local known_lives = ' ' .. (caller.life or '') .. ' '
caller.life = string.match(known_lives, '^ (%S*)')

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

local function node_of(key)
  return string.match(key, '^[^/]*') -- '' of what is damaged
end

-- Every member that begins with `prefix` and a slash.
local function range_of(prefix)
  return '[' .. prefix .. '/', '(' .. prefix .. '0' -- '0' is the character after '/'
end

-- Whether the data came here from a server that the caller knows, and have not been written to here by a node's beat.
local function has_moved()
  return state.life ~= '' and state.life ~= caller.life
    and string.find(known_lives, ' ' .. state.life .. ' ', 1, true) ~= nil
end

-- Whether every limit is there, and is one.
local function are_limits()
  for _, name in ipairs(NEEDED) do
    if not limits[name] or limits[name] < 0 then return false end
  end
  if not limits.kind or not limits.share then return false end
  for _, seats in ipairs({ limits.reserve, limits.limit }) do
    if seats ~= '' then
      local decoded, table_of = pcall(cjson.decode, seats)
      if not decoded or type(table_of) ~= 'table' then return false end
    end
  end
  return true
end

-- A number as meta has it; nil if it is none, or one that cannot be counted with to the unit.
local function whole_number(value)
  local number = tonumber(value)
  return number and math.abs(number) < 9e15 and number or nil
end

-- Reads meta. False before a policy gave this pool its limits, and where one of them is lost or damaged. A field of the
-- state that is missing or no number has its first value, and so has a fence that cannot be; a limit's name is that of
-- its field.
local function load_limits()
  local found = call('HGETALL', META)
  limits = { reserve = '', limit = '' }
  state = { fence = 0, audited = 0, tally = '', epoch = 0, life = '', recovering = 0, opened = 0,
    blank = '', skew = 0, line = 0, vouched = 0, taken = 0, buried = 0, graves_seen = 0,
    keys = -1, present = '', missed = '', inspected = 0, aside = 0 }
  for at = 1, #found, 2 do
    local name, value = found[at], found[at + 1]
    local part = state[name] and state or limits
    if not TEXTS[name] then value = whole_number(value) end
    part[name] = value or part[name]
  end
  if state.fence > server_now + FENCE_AHEAD then state.fence = 0 end
  if not limits.policy or not are_limits() then return false end
  now = server_now - state.skew
  return true
end

-- Whether no node has confirmed the time for so long that the clock may have jumped: see epoch.lua.
local function is_time_uncertain()
  return state.vouched > 0 and now - math.max(state.vouched, state.taken) > limits.session_timeout_ms / 2
end

-- The answer to a caller whose policy is not the shard's, or nil.
local function policy_differs(version)
  if not load_limits() or limits.policy < version then return { 'configure' } end
  if limits.policy > version then return { 'policy' } end
  return nil
end

-- Usage. A *tally* is one hour in words: its beginning (ms), until when it is counted (ms), seat-milliseconds held, ms
-- counted, most seats held at once, seats held at its end, capacity, and denials as "reason:number,..." or "-". The
-- present hour stands in meta, hours that are over in usage; an hour in which nothing changed has no entry: as many
-- seats were held as at the end of the hour before.
--
-- A seat counts as held until its deadline, to the ms, whenever it is swept; one that a session kept whose node died,
-- until a script finds that out. If more than LAPSES lapse between two decisions, the rest count until the last of
-- LAPSES. A clock that goes back counts no time twice, unless it goes back for more than an hour.

local HOUR = 3600 * 1000
local USAGE_KEPT = 400 * 24 * HOUR
local USAGE_FORGOTTEN = 8 -- hours too old that are forgotten per call
local LAPSES = 1000 -- lapsed seats looked at per call

local tally = nil -- of the present hour, counted until `now`, once it was needed
local finished = {} -- tallies that came to their end since
local seats_changed = false

local function read_tally(words)
  local hour, since, area, span, peak, held, capacity, denials =
    string.match(words, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+)$')
  if not hour then return nil end
  return { hour = tonumber(hour), since = tonumber(since), area = tonumber(area), span = tonumber(span),
    peak = tonumber(peak), held = tonumber(held), capacity = tonumber(capacity), denials = denials }
end

local function tally_text(one)
  return string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f %s', one.hour, one.since, one.area, one.span, one.peak,
    one.held, one.capacity, one.denials)
end

local function new_tally(since, held)
  return { hour = since - since % HOUR, since = since, area = 0, span = 0, peak = held, held = held,
    capacity = limits.capacity, denials = '-' }
end

local function count_span(until_ms)
  local span = math.max(0, until_ms - tally.since)
  tally.area, tally.span, tally.since = tally.area + tally.held * span, tally.span + span, tally.since + span
end

-- Counts until `moment`, which may be in a later hour. One at which a seat lapses ends the hour before it.
local function count_on(moment, lapses)
  local at = lapses and moment - 1 or moment
  if at >= tally.hour + HOUR then
    count_span(tally.hour + HOUR)
    finished[#finished + 1] = tally
    tally = new_tally(at - at % HOUR, tally.held)
  end
  count_span(moment)
end

-- Reads the present hour's tally and counts it until now, seats that lapsed meanwhile until their deadlines: before any
-- of them is swept.
local function open_tally()
  if tally then return end
  tally = read_tally(state.tally)
  if tally and now < tally.since - HOUR then -- the clock had jumped ahead while no node was there
    finished[1] = tally
    local known = call('ZRANGEBYSCORE', USAGE, text(now - now % HOUR), text(now - now % HOUR), 'LIMIT', 0, 1)[1]
    tally = known and read_tally(known)
    if tally then tally.since, tally.held = now, count_alive(SEATS) end
  end
  if not tally then
    tally = new_tally(now, count_alive(SEATS))
    return
  end
  local from = '(' .. text(tally.since)
  local lapsed = call('ZRANGEBYSCORE', SEATS, from, text(now), 'WITHSCORES', 'LIMIT', 0, LAPSES)
  for i = 2, #lapsed, 2 do
    count_on(tonumber(lapsed[i]), true)
    tally.held = math.max(0, tally.held - 1)
  end
  if #lapsed == 2 * LAPSES then tally.held = count_alive(SEATS) end
  count_on(now)
  tally.capacity = limits.capacity
end

-- To be called before a seat is taken, freed or swept; write_usage must follow.
local function before_seats_change()
  open_tally()
  seats_changed = true
end

local function count_denial(reason)
  open_tally()
  local counts, reasons = { [reason] = 0 }, {}
  for known, number in string.gmatch(tally.denials, '([%l_]+):(%d+)') do counts[known] = tonumber(number) end
  counts[reason] = counts[reason] + 1
  for known in pairs(counts) do reasons[#reasons + 1] = known end
  table.sort(reasons)
  for at, known in ipairs(reasons) do reasons[at] = known .. ':' .. text(counts[known]) end
  tally.denials = table.concat(reasons, ',')
end

-- Forgets hours that are too old, but for the newest of them: the hours after it begin with its seats.
local function forget_hours()
  local old = call('ZRANGEBYSCORE', USAGE, '-inf', text(now - USAGE_KEPT), 'LIMIT', 0, USAGE_FORGOTTEN + 1)
  for at = 1, #old - 1 do call('ZREM', USAGE, old[at]) end
end

local function write_usage()
  if seats_changed then
    tally.held = count_alive(SEATS)
    tally.peak = math.max(tally.peak, tally.held)
    seats_changed = false
  end
  for _, hour in ipairs(finished) do
    call('ZREMRANGEBYSCORE', USAGE, text(hour.hour), text(hour.hour))
    call('ZADD', USAGE, text(hour.hour), tally_text(hour))
  end
  if #finished > 0 then forget_hours() end
  finished = {}
  call('HSET', META, 'fence', text(state.fence), 'audited', text(state.audited),
    'tally', tally and tally_text(tally) or state.tally)
end

-- Writes a decision to the audit, and the usage with it. `by` and `note`: sealed, an administrator's name and comment.
local function audit(event, user, node, session, device, detail, fence, by, note)
  if by then
    call('XADD', AUDIT, 'MAXLEN', '~', AUDIT_LENGTH, '*', 'event', event, 'user', user, 'node', node,
      'session', session, 'device', device, 'detail', detail, 'fence', text(fence), 'by', by, 'note', note or '')
  else
    call('XADD', AUDIT, 'MAXLEN', '~', AUDIT_LENGTH, '*', 'event', event, 'user', user, 'node', node,
      'session', session, 'device', device, 'detail', detail, 'fence', text(fence))
  end
  state.audited = state.audited + 1
  write_usage()
end
