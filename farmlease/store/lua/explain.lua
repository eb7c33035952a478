-- explain: what would acquire answer to this question, and what does that rest on? Writes nothing: the scripts that it
-- runs write into the memory of lib/dry.lua, so that no line of the decision stands anywhere else.
--
-- Runs acquire.lua, configure.lua, heartbeat.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  acquire's, and then
--       13 limits       of the policy, as configure has them: for a shard that does not have them yet
--       then what the node knows, as lib/shard.lua names it
--
-- Answers
--   explained, now ms, sets, lease, index, expires, then acquire's answer: granted, again, moved, waiting or denied,
--                            with its fields. What stands before it is as it is before the answer: sets: JSON list of
--                            {set, held, most (0: no limit)}, all that is limited here, a limit of the policy
--                            under its id; lease: document (JSON) of the
--                            user's lease, '' without one; index under which it stands; expires ms, '' while kept
--   policy, strange, spelled  as acquire's
--   crowded                  more dead sessions than this may look at: ask again once heartbeats have ended some

local PASSES = 4 -- how often a script is asked again that has more to sweep: 256 dead sessions

-- The user's lease before the question: where this session is counted, else under the present name, else a former one.
local function lease_before(user, key, former)
  local lease = settled_lease(user)
  for _, other in ipairs(former) do
    if lease and lease.sessions[key] then break end
    local theirs = settled_lease(other)
    if theirs and (not lease or theirs.sessions[key]) then lease, user = theirs, other end
  end
  return lease, user
end

local function count_set(name, held, most)
  return { set = name, held = held, most = most }
end

-- Every bounded set that a session here must fit in: of the pool, of the user, and each limit that it counts in.
local function bounded_sets(user, lease)
  local _, used, kept = charging.reserved_seats()
  local most_devices = limit_within(limits.devices_per_user, MOST_DEVICES)
  local most_sessions = limit_within(limits.sessions_per_user, MOST_USES)
  local devices = 0
  for device in pairs(lease and lease.devices or {}) do
    if device_deadline(lease, device) > now then devices = devices + 1 end
  end
  local sets = {
    count_set('seats', count_alive(SEATS), limits.capacity + limits.overdraft),
    count_set('quarantined', count_alive(QUARANTINE), 0),
    count_set('reserved', kept, 0),
    count_set('devices', devices, most_devices),
    count_set('sessions', count_of(lease and lease.sessions or {}), most_sessions),
    count_set('waiting', count_alive(WAITS), 0),
    count_set('places', places_of(user), MOST_PLACES),
  }
  local most = limits.limit ~= '' and cjson.decode(limits.limit) or {} -- load_limits has seen that it decodes
  for _, id in ipairs(cjson.decode(ARGV[9])) do
    if most[id] then sets[#sets + 1] = count_set(id, used[id] or 0, most[id]) end
  end
  return sets
end

-- What stands before an explained answer; '' where the question is not for this store as it is. nil if there is more to
-- sweep than this may look at.
local function counted_before()
  if not load_limits() or is_other_store() then return '' end
  for _ = 1, PASSES do
    if not sweep() then
      local former = ARGV[12] ~= '' and cjson.decode(ARGV[12]) or {}
      local lease, user = lease_before(ARGV[2], ARGV[3] .. '/' .. ARGV[4], former)
      local expires = lease and text_or_none(lease_deadline(user, lease)) or ''
      return { 'explained', text(now), cjson.encode(bounded_sets(user, lease)), lease and cjson.encode(lease) or '',
        user, expires }
    end
  end
  return nil
end

-- The question is asked as a node asks it: a shard without these limits is given them first, and a node that is not
-- alive beats first.
local explained = counted_before()
if not explained then return { 'crowded' } end
local answer = acquire(ARGV)
if answer[1] == 'configure' then
  configure({ ARGV[1], ARGV[13] })
  explained = counted_before() or ''
  answer = acquire(ARGV)
end
if answer[1] == 'lapsed' then
  local beaten = heartbeat({ ARGV[1], ARGV[3], '' })
  if beaten[1] ~= 'alive' then return beaten end
  answer = acquire(ARGV)
end
local decided = { granted = true, again = true, moved = true, waiting = true, denied = true }
if not decided[answer[1]] then return answer[1] == 'more' and { 'crowded' } or answer end
for _, word in ipairs(answer) do explained[#explained + 1] = word end
return explained
