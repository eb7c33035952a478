-- report: a node reports what it is, and reads what is wished of it. Called every few seconds; written only where
-- something is new, or was last written a while ago. Repeating it changes nothing.
--
-- A wish is {version, draining, at ms, by (sealed, base64)}; a later version is a later wish. The node keeps the
-- one it follows and sends it each time, so that a store that lost it gets it back.
--
-- Two hosts of one name differ from one that was booted: an incarnation that ended never comes back, so one that is
-- back after another one reported under the name has a namesake.
--
-- Uses lib/farm.lua
-- Uses lib/node_entry.lua
--
-- KEYS  1 nodes     hash    node -> its last report, when, and what is wished of it (JSON)
--       2 audit     stream  decisions of the whole farm
--       3 counts    hash    event -> how many of them were ever written to the audit
-- ARGV  1 node      name of the node
--       2 report    JSON object: incarnation and whatever else the node reports
--       3 known     JSON: the wish the node follows; version 0: none
--       4 asked     drain or undrain if an administrator asked that on the node itself since, else ''
--       5 by        sealed name of that administrator, for the audit
--       6 wisher    the same in base64, as the wish keeps it
--       7 former    JSON list: names under which this same incarnation reported before its host was renamed
--
-- Answers
--   heard, wish (JSON), now ms, namesakes: how many others report under this name

local NODES, AUDIT = KEYS[1], KEYS[2]
local FRESH = 10 * 1000 -- a node whose report is not new is written again after so long
local DAY = 24 * 3600 * 1000
local FORGOTTEN = 30 * DAY -- a node that was silent for so long is dropped
local MOST = 10000 -- nodes looked at for that, at once
local NAMESAKE = 30 * 1000 -- a namesake that was silent for so long is one no more

local node, sent, known, asked = ARGV[1], cjson.decode(ARGV[2]), cjson.decode(ARGV[3]), ARGV[4]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local before = entry_of(redis.call('HGET', NODES, node)) or {}

-- 1. What is wished: the later of what the store and the node know, then what was asked on the node itself. An undrain
--    does not overrule a drain that was asked elsewhere meanwhile: a node is drained until no drain is left.
local wish = before.wish or { version = 0, draining = false, at = 0, by = '' }
local event
if known.version > wish.version then wish = known end
local draining = asked == 'drain'
if asked ~= '' and draining ~= wish.draining and (draining or wish.version == known.version) then
  wish = { version = math.max(wish.version + 1, now), draining = draining, at = now, by = ARGV[6] }
  event = draining and 'drained' or 'undrained'
end

-- 2. Which other incarnations reported lately, and is this one back after one of them?
local others, namesakes, back = {}, 0, before.back
for life, seen in pairs(before.others or {}) do -- as many as there are hosts of the name
  if now - seen < NAMESAKE then others[life] = seen end
end
if before.incarnation and before.incarnation ~= sent.incarnation then
  if others[sent.incarnation] then back = now end
  others[before.incarnation] = before.seen
end
others[sent.incarnation] = nil
if back and now - back < NAMESAKE then
  for _ in pairs(others) do namesakes = namesakes + 1 end
end

-- 3. Is there anything new?
sent.wish, sent.seen = wish, now
sent.since = before.incarnation == sent.incarnation and before.since or now
local new = not before.seen or now - before.seen >= FRESH or before.seen > now or before.wish.version ~= wish.version
for name, value in pairs(sent) do
  if name ~= 'wish' and name ~= 'seen' and before[name] ~= value then new = true end
end
sent.others, sent.back, sent.namesakes = others, back, namesakes
if namesakes ~= (before.namesakes or 0) then new = true end
local answer = { 'heard', cjson.encode(wish), string.format('%.0f', now), string.format('%.0f', namesakes) }
if not new then return answer end

-- 4. Write it; once a day each node removes those that are gone for good.
local lost = has_lost(KEYS[3], 'nodes', redis.call('HLEN', NODES))
redis.call('HSET', NODES, node, cjson.encode(sent))
for _, name in ipairs(cjson.decode(ARGV[7])) do -- as many as the host had names
  local entry = entry_of(redis.call('HGET', NODES, name))
  if entry and name ~= node and entry.incarnation == sent.incarnation then
    redis.call('HDEL', NODES, name)
  end
end
if event then
  redis.call('HINCRBY', KEYS[3], event, 1)
  redis.call('XADD', AUDIT, 'MAXLEN', '~', 100000, '*', 'event', event, 'user', '', 'node', node, 'session', '',
    'detail', '', 'by', ARGV[5])
end
if not before.seen or math.floor(before.seen / DAY) ~= math.floor(now / DAY) then
  local all = redis.call('HGETALL', NODES)
  for i = 1, math.min(#all, 2 * MOST), 2 do
    local entry = entry_of(all[i + 1])
    if entry and entry.seen < now - FORGOTTEN then redis.call('HDEL', NODES, all[i]) end
  end
end
note_size(KEYS[3], AUDIT, 'nodes', redis.call('HLEN', NODES), lost, node)
return answer
