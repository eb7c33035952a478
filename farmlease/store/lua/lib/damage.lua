-- damage: what was lost, and what does not decode, stops nobody else. Part of every script of a shard.
--
-- Lost keys. Redis drops a key with its last member, so that a key which is not there may be right. meta has how many
-- of the shard's keys there are (`keys`) and which (`present`): each script that writes notes by how many its own
-- writes changed that number. If there are fewer keys than noted, somebody else removed one. The store then is not the
-- one that its nodes know (see epoch.lua): a new epoch begins, and all that the nodes have is restored. `missed` has
-- the names of the keys that were lost: of those that are made of the leases' documents until rebuild.lua has done so,
-- of the others until an administrator has repaired the pool.
--
-- Damaged documents. One that does not decode, or lacks a field that scripts need, is set aside: it moves to the hash
-- `damaged`, as lease/user index, and counts as none. So does a record without a lease where another one is about to
-- take its place, as record/user index, and a member of a set that names nothing, as set/member. Each value begins
-- with the moment (ms) and a blank. A reader passes over what is damaged and leaves it where it is.
--
-- In meta, by the names of the stored format: keys, present and missed, as above, and inspected (how many entries of
-- `damaged` an administrator has seen).

local MENDED_WITHIN = 120000 -- ms: a node that has the receipt of a lease that was set aside restores it by then
local MOST_NODES_BACK = 10000
local TRACKED = {
  { 'leases', LEASES }, { 'records', RECORDS }, { 'names', NAMES }, { 'seats', SEATS }, { 'nodes', NODES },
  { 'sessions', SESSIONS }, { 'queue', QUEUE }, { 'audit', AUDIT }, { 'waits', WAITS }, { 'holds', HOLDS },
  { 'reserved', RESERVED }, { 'quarantine', QUARANTINE }, { 'barred', BARRED }, { 'awaited', AWAITED },
  { 'usage', USAGE }, { 'over', OVER },
}

local LOST_FOR_GOOD = { audit = true, barred = true, usage = true, over = true } -- no lease's document has these

local function count_keys()
  return call('EXISTS', LEASES, RECORDS, NAMES, SEATS, NODES, SESSIONS, QUEUE, AUDIT, WAITS, HOLDS, RESERVED,
    QUARANTINE, BARRED, AWAITED, USAGE, OVER)
end

local keys_before = count_keys() -- before this script wrote anything
local keys_counted = false -- whether this script has dealt with a loss: what is there now is what should be

local function has_word(words, word)
  return string.find(' ' .. words .. ' ', ' ' .. word .. ' ', 1, true) ~= nil
end

local function present_keys()
  local names = {}
  for _, entry in ipairs(TRACKED) do
    local set = entry[2]
    if call('EXISTS', set) == 1 then names[#names + 1] = entry[1] end
  end
  return table.concat(names, ' ')
end

-- The names of the keys that somebody else removed, '' if there are none. Only before this script has written.
local function lost_keys()
  if state.keys <= keys_before then return '' end
  local there, lost = present_keys(), {}
  for name in string.gmatch(state.present, '%a+') do
    if not has_word(there, name) then lost[#lost + 1] = name end
  end
  return #lost > 0 and table.concat(lost, ' ') or 'unknown'
end

-- Every node that has a session here lives again, as if it had just beaten: its own heartbeat tells otherwise.
local function put_nodes_back()
  local from = '-'
  for _ = 1, MOST_NODES_BACK do
    local member = call('ZRANGEBYLEX', SESSIONS, from, '+', 'LIMIT', 0, 1)[1]
    if not member then return end
    local node = string.match(member, '^[^/]*')
    if string.find(node, '#', 2, true) and string.sub(node, 1, 1) ~= NOTICE then
      call('ZADD', NODES, 'NX', text(now + limits.session_timeout_ms), node)
    end
    from = '(' .. node .. '0' -- the character after the slash
  end
end

-- Takes what is there for all that should be, and remembers what was lost. Who waits asks each second: one half of the
-- queue is worth nothing without the other.
local function accept_loss(lost)
  local words = { state.missed ~= '' and state.missed or nil }
  for name in string.gmatch(lost, '%a+') do
    if not has_word(state.missed, name) then words[#words + 1] = name end
  end
  state.missed = table.concat(words, ' ')
  keys_counted = true
  call('HSET', META, 'missed', state.missed)
  if has_word(lost, 'nodes') then put_nodes_back() end
  if has_word(lost, 'queue') or has_word(lost, 'waits') then
    call('DEL', QUEUE)
    call('DEL', WAITS)
  end
end

-- Called with the answer of each script that writes: notes how many keys there are by now.
local function note_keys(answer)
  if not state or not limits.policy then return answer end
  local after = count_keys()
  if keys_counted or state.keys < keys_before then
    call('HSET', META, 'keys', text(after), 'present', present_keys())
  elseif after ~= keys_before then
    local present = state.keys == keys_before and present_keys() or state.present
    call('HSET', META, 'keys', text(state.keys + after - keys_before), 'present', present)
  end
  return answer
end

-- All that was lost is there again, as far as it can be. `by`: the administrator who has repaired the pool, sealed; ''
-- for a node.
local function settle_loss(by)
  local left = {}
  for name in string.gmatch(state.missed, '%a+') do
    if by == '' and LOST_FOR_GOOD[name] then left[#left + 1] = name end
  end
  local missed = table.concat(left, ' ')
  if missed ~= state.missed then call('HSET', META, 'missed', missed) end
  if by == '' then return end
  call('HSET', META, 'inspected', text(call('HLEN', DAMAGED)))
  keys_counted = true
  audit('repaired', '', '', '', '', '', 0, by)
end

-- What the shard lacks, in words: names of keys that were lost or are not whole, and `damaged` if something was set
-- aside that no administrator has seen.
local function missing()
  local leases, records, names = call('HLEN', LEASES), call('HLEN', RECORDS), call('HLEN', NAMES)
  local places, waits = call('ZCARD', QUEUE), call('ZCARD', WAITS)
  local lacks = { leases = leases < records, records = records < leases, names = names < leases,
    queue = places < waits, waits = waits < places }
  local words = {}
  for _, entry in ipairs(TRACKED) do
    local name = entry[1]
    local lacking = lacks[name]
    if lacking == nil then lacking = has_word(state.missed, name) end
    if lacking then words[#words + 1] = name end
  end
  if call('HLEN', DAMAGED) > state.inspected then words[#words + 1] = 'damaged' end
  return table.concat(words, ' ')
end

-- Keeps a value for inspection; one that was kept under this name before stays too.
local function keep_damaged(field, value)
  local before = call('HGET', DAMAGED, field)
  if before then call('HSET', DAMAGED, field .. '/' .. string.match(before, '^%d*'), before) end
  call('HSET', DAMAGED, field, text(now) .. ' ' .. value)
end

-- A member of a set that names nothing: it is kept, and the set goes on without it.
local function drop_damaged(set, name, member)
  keep_damaged(name .. '/' .. member, call('ZSCORE', set, member) or '')
  call('ZREM', set, member)
end

local function is_number(value)
  return type(value) == 'number' and value >= 0 and value < 9e15 -- whole numbers beyond that are none
end

local function is_number_or_none(value)
  return value == nil or is_number(value)
end

local function is_session(key, session, devices)
  return type(key) == 'string' and string.match(key, '^[^/#]+#[^/]*/.') ~= nil and type(session) == 'table'
    and type(session.device) == 'string' and devices[session.device] ~= nil and is_number(session.fence)
    and is_number(session.started) and is_number_or_none(session.hold)
    and (session.seat == nil or type(session.seat) == 'string')
end

-- Whether each value of a table that need not be there is of this type.
local function are_all(values, kind)
  if values == nil then return true end
  if type(values) ~= 'table' then return false end
  for _, value in pairs(values) do
    if type(value) ~= kind then return false end
  end
  return true
end

-- Whether a document has all that the scripts need of a lease, see leases.lua.
local function is_lease(lease)
  if type(lease) ~= 'table' or type(lease.id) ~= 'string' or type(lease.devices) ~= 'table'
    or type(lease.sessions) ~= 'table' then return false end
  if not (is_number(lease.issued) and is_number(lease.contact) and is_number(lease.version)
    and is_number_or_none(lease['until']) and is_number_or_none(lease.saved)) then return false end
  for _, claim in pairs(lease.devices) do
    if type(claim) ~= 'table' or not is_number(claim.seen) or not is_number(claim['until']) then return false end
  end
  for key, session in pairs(lease.sessions) do
    if not is_session(key, session, lease.devices) then return false end
  end
  return are_all(lease.lingering, 'number') and are_all(lease.charges, 'string') and are_all(lease.replaced, 'number')
end

-- A lease's document as a value; nil if there is none. One that is damaged counts as none, and is set aside by a script
-- that writes.
local function read_lease(user)
  local document = call('HGET', LEASES, user)
  if not document then return nil end
  local decoded, lease = pcall(cjson.decode, document)
  if decoded and is_lease(lease) then return lease end
  if WRITES then
    keep_damaged('lease/' .. user, document)
    call('HDEL', LEASES, user)
    audit('damaged', user, '', '', '', 'lease', 0)
  end
  return nil
end

-- Until when a lease that was set aside is waited for: its nodes may have it. nil if none is.
local function mended_until(user)
  local kept = call('HGET', DAMAGED, 'lease/' .. user)
  local moment = kept and tonumber(string.match(kept, '^%d+'))
  return moment and moment + MENDED_WITHIN > now and moment + MENDED_WITHIN or nil
end

-- Writes the record of a lease that is new here. One that is there, of a lease that was lost, is kept; once it is the
-- lease's again it is no longer.
local function put_record(user, record)
  local there, field = call('HGET', RECORDS, user), 'record/' .. user
  if there and there ~= record then
    keep_damaged(field, there)
    audit('damaged', user, '', '', '', 'record', 0)
  end
  call('HSET', RECORDS, user, record)
  local kept = call('HGET', DAMAGED, field)
  if kept and string.match(kept, '^%d* (.*)$') == record then call('HDEL', DAMAGED, field) end
end
