-- report: a node says what it is, and hears what is wished of it. Asked every few seconds; written only where something
-- is new, or was last written a while ago. Saying it again changes nothing.
--
-- A wish is {version, draining, at ms, by (sealed, base64)}; a later version is a later wish. The node keeps the
-- one it goes by and tells it each time, so that a store that lost it gets it back.
--
-- Two hosts of one name are told from one that was booted: a life (incarnation) that ended never comes back, so one
-- that is back after another one had its place has a namesake.
--
-- KEYS  1 nodes     hash    node -> what it said last, when, and what is wished of it (JSON)
--       2 audit     stream  decisions of the whole farm
--       3 counts    hash    event -> how many of them were ever written to the audit
-- ARGV  1 node      name of the node
--       2 report    JSON object: incarnation and whatever else the node says of itself
--       3 known     JSON: the wish the node goes by; version 0: none
--       4 asked     drain or undrain if somebody asked that on the node itself since, else ''
--       5 by        sealed words of who did, for the audit
--       6 wisher    the same in base64, as the wish keeps it
--
-- Answers
--   heard, wish (JSON), now ms, namesakes: how many others report under this name

local NODES, AUDIT = KEYS[1], KEYS[2]
local FRESH = 10 * 1000 -- a node that has nothing new to say is written down again after so long
local DAY = 24 * 3600 * 1000
local FORGOTTEN = 30 * DAY -- a node that was silent for so long is dropped
local MOST = 10000 -- nodes looked at for that, at once
local NAMESAKE = 30 * 1000 -- a namesake that was silent for so long is one no more

local node, said, known, asked = ARGV[1], cjson.decode(ARGV[2]), cjson.decode(ARGV[3]), ARGV[4]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local stored = redis.call('HGET', NODES, node)
local before = stored and cjson.decode(stored) or {}

-- 1. What is wished: the later of what the store and the node know, then what was asked on the node itself. Who asked
--    otherwise elsewhere meanwhile is not overruled by an undrain: a node is drained until nobody wants it to be.
local wish = before.wish or { version = 0, draining = false, at = 0, by = '' }
local event
if known.version > wish.version then wish = known end
local draining = asked == 'drain'
if asked ~= '' and draining ~= wish.draining and (draining or wish.version == known.version) then
  wish = { version = math.max(wish.version + 1, now), draining = draining, at = now, by = ARGV[6] }
  event = draining and 'drained' or 'undrained'
end

-- 2. Which other lives took this place lately, and is this one back after one of them?
local others, namesakes, back = {}, 0, before.back
for life, seen in pairs(before.others or {}) do -- as many as there are hosts of the name
  if now - seen < NAMESAKE then others[life] = seen end
end
if before.incarnation and before.incarnation ~= said.incarnation then
  if others[said.incarnation] then back = now end
  others[before.incarnation] = before.seen
end
others[said.incarnation] = nil
if back and now - back < NAMESAKE then
  for _ in pairs(others) do namesakes = namesakes + 1 end
end

-- 3. Is there anything new?
said.wish, said.seen = wish, now
said.since = before.incarnation == said.incarnation and before.since or now
local new = not before.seen or now - before.seen >= FRESH or before.seen > now or before.wish.version ~= wish.version
for name, value in pairs(said) do
  if name ~= 'wish' and name ~= 'seen' and before[name] ~= value then new = true end
end
said.others, said.back, said.namesakes = others, back, namesakes
if namesakes ~= (before.namesakes or 0) then new = true end
local answer = { 'heard', cjson.encode(wish), string.format('%.0f', now), string.format('%.0f', namesakes) }
if not new then return answer end

-- 4. Written down; once a day each node clears away those that are gone for good.
redis.call('HSET', NODES, node, cjson.encode(said))
if event then
  redis.call('HINCRBY', KEYS[3], event, 1)
  redis.call('XADD', AUDIT, 'MAXLEN', '~', 100000, '*', 'event', event, 'user', '', 'node', node, 'session', '',
    'detail', '', 'by', ARGV[5])
end
if not before.seen or math.floor(before.seen / DAY) ~= math.floor(now / DAY) then
  local all = redis.call('HGETALL', NODES)
  for i = 1, math.min(#all, 2 * MOST), 2 do
    if cjson.decode(all[i + 1]).seen < now - FORGOTTEN then redis.call('HDEL', NODES, all[i]) end
  end
end
return answer
