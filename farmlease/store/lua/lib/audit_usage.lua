-- audit_usage: what a shard writes down of its own doings: every decision, and how its seats are used from hour to
-- hour. Part of every script of a shard.
--
-- A *tally* is one hour in words: its beginning (ms), until when it is counted (ms), seat-milliseconds held, ms
-- counted, most seats held at once, seats held at its end, capacity, and denials as "reason:number,..." or "-". The
-- hour under way stands in meta, hours that are over in usage; one in which nothing changed has no entry: as many seats
-- were held as at the end of the one before.
--
-- A seat counts as held until its deadline, to the ms, whenever it is swept away; one that a session kept whose node
-- died, until somebody finds that out. The more than LAPSES that lapse between two decisions count until the last of
-- LAPSES. A clock that goes back counts no time twice, unless it goes back for more than an hour.

local HOUR = 3600 * 1000
local USAGE_KEPT = 400 * 24 * HOUR
local USAGE_FORGOTTEN = 8 -- hours too old that are forgotten per call
local LAPSES = 1000 -- lapsed seats looked at per call

local tally = nil -- of the hour under way, counted until `now`, once it was asked for
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

-- Looks at the hour under way and counts it until now, seats that lapsed meanwhile until their deadlines: before any of
-- them is swept.
local function open_tally()
  if tally then return end
  tally = read_tally(limits.tally)
  if tally and now < tally.since - HOUR then -- the clock had leapt ahead, and nobody was there to notice
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

-- To be called before a seat is taken, freed or swept; keep_books must follow.
local function seats_change()
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

-- Forgets hours that are too old, but for the newest of them: it says how many seats were held after it.
local function forget_hours()
  local old = call('ZRANGEBYSCORE', USAGE, '-inf', text(now - USAGE_KEPT), 'LIMIT', 0, USAGE_FORGOTTEN + 1)
  for at = 1, #old - 1 do call('ZREM', USAGE, old[at]) end
end

local function keep_books()
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
  call('HSET', META, 'fence', text(limits.fence), 'audited', text(limits.audited),
    'tally', tally and tally_text(tally) or limits.tally)
end

-- Writes a decision down, and the books with it. `by` and `note`: sealed, an administrator's name and words.
local function audit(event, user, node, session, device, detail, fence, by, note)
  if by then
    call('XADD', AUDIT, 'MAXLEN', '~', AUDIT_LENGTH, '*', 'event', event, 'user', user, 'node', node,
      'session', session, 'device', device, 'detail', detail, 'fence', text(fence), 'by', by, 'note', note or '')
  else
    call('XADD', AUDIT, 'MAXLEN', '~', AUDIT_LENGTH, '*', 'event', event, 'user', user, 'node', node,
      'session', session, 'device', device, 'detail', detail, 'fence', text(fence))
  end
  limits.audited = limits.audited + 1
  keep_books()
end
