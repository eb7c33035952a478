-- epoch: does the store still hold what its nodes know that it held, and what time is it? Part of every script of a
-- shard. `caller`: what the node that asks knows, see shard.lua.
--
-- An *epoch* is one uninterrupted life of a shard's data. Each node sends the epoch it knows, and the highest fence it
-- has seen. A new epoch begins where the data is gone or older than that, where another server, or another life of it,
-- holds the data, and where its clock has jumped ahead. It begins with a *recovery window*: no new session starts until
-- every node known before has restored what it has, or the window is over. A slot that a Cluster moves, with all its
-- keys, from a server that lives on is no loss: who has made sure of that says so, and a heartbeat notes the server.
--
-- The time of a shard (`now`) is the server's clock, less what that has jumped ahead (`skew`). A node that once
-- received the time counts on from there by a steady clock of its own, and sends this estimate (`expected`) with each
-- call. One rule: **an estimate holds the time back, and never moves it on past the server's clock.**
--   More than LEAP ahead of an estimate: the clock has jumped. The time goes on as estimated, and a new epoch begins,
--   since a caller without an estimate may have ended what the clock jumped over.
--   More than LEAP behind: the clock was put back, or stood still. What was held back is let go by as much; apart from
--   that the time goes back with the clock, and claims last as much longer.
-- Either way a new *clock generation* begins. An estimate of an earlier generation may have begun before the clock was
-- set or after: it proves nothing. Nor does one that stood still itself, which shows where other nodes confirmed the
-- clock meanwhile.
-- If the data are gone, so is the generation: the first node's estimate is accepted.
-- A living node beats twice in a session timeout, and so confirms the time. Where none did for half of one, the time is
-- *uncertain*, and ends no session. A caller whose estimate does not confirm it then begins a new epoch: a node with
-- an estimate has the recovery window to correct the time; after that the clock is taken as it is.
--
-- In meta, by the names of the stored format: epoch (number, grows), life (of the server that holds the data),
-- recovering (end of the window, ms; 0 once it is over), opened (ms: when it began), blank ('1': this epoch began with
-- nothing, by a node that knew of nothing before), skew (ms), line
-- (the clock generation: a number that grows), vouched (ms: when an estimate last confirmed the time), taken (ms: when
-- it was taken as it is).
--
-- Lost keys. Redis drops a key with its last member, so that a key which is not there may be right. meta has how many
-- of the shard's keys there are (`keys`) and which (`present`): each script that writes notes by how many its own
-- writes changed that number. If there are fewer than noted, somebody else removed one, and a new epoch begins.
-- `missed` has the names of the keys that were lost: of those that are made of the leases' documents until rebuild.lua
-- has done so, of the others until an administrator has repaired the pool.
--
-- Damage. What does not decode is set aside: it moves to the hash `damaged`, as lease/user index, record/user index or
-- set/member; each value begins with the moment (ms) and a blank. In meta, aside: how many there are, if nobody else
-- removed some; inspected: how many of them an administrator has seen. A reader passes over what is damaged and leaves
-- it where it is.

local LEAP = 60000 -- ms that the time may differ from an estimate; farmlease.store.answers.recovery has the same
local MOST_NODES = 10000
local TRACKED = {
  { 'leases', LEASES }, { 'records', RECORDS }, { 'names', NAMES }, { 'seats', SEATS }, { 'nodes', NODES },
  { 'sessions', SESSIONS }, { 'queue', QUEUE }, { 'audit', AUDIT }, { 'waits', WAITS }, { 'holds', HOLDS },
  { 'reserved', RESERVED }, { 'quarantine', QUARANTINE }, { 'barred', BARRED }, { 'awaited', AWAITED },
  { 'usage', USAGE }, { 'over', OVER }, { 'over_numbers', OVER_NUMBERS },
}

-- No lease's document has these.
local LOST_FOR_GOOD = { audit = true, barred = true, usage = true, over = true, over_numbers = true }

local function count_keys()
  return call('EXISTS', LEASES, RECORDS, NAMES, SEATS, NODES, SESSIONS, QUEUE, AUDIT, WAITS, HOLDS, RESERVED,
    QUARANTINE, BARRED, AWAITED, USAGE, OVER, OVER_NUMBERS)
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
  for name in string.gmatch(state.present, '%S+') do
    if not has_word(there, name) then lost[#lost + 1] = name end
  end
  return #lost > 0 and table.concat(lost, ' ') or 'unknown'
end

-- Every node that has a session here lives again, as if it had just beaten: its own heartbeat tells otherwise.
local function put_nodes_back()
  local from = '-'
  for _ = 1, MOST_NODES do
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
  for name in string.gmatch(lost, '%S+') do
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

-- Whether a set was lost that is made of the leases' documents.
local function has_lost_sets()
  for _, name in ipairs({ 'seats', 'sessions', 'holds', 'reserved', 'quarantine', 'unknown' }) do
    if has_word(state.missed, name) then return true end
  end
  return false
end

-- All that was lost is there again, as far as it can be. `by`: the administrator who has repaired the pool, sealed; ''
-- for a node.
local function settle_loss(by)
  local left = {}
  for name in string.gmatch(state.missed, '%S+') do
    if by == '' and LOST_FOR_GOOD[name] then left[#left + 1] = name end
  end
  local missed = table.concat(left, ' ')
  if missed ~= state.missed then call('HSET', META, 'missed', missed) end
  if by == '' then return end
  call('HSET', META, 'inspected', text(call('HLEN', DAMAGED)), 'aside', text(call('HLEN', DAMAGED)))
  keys_counted = true
  audit('repaired', '', '', '', '', '', 0, by)
end

-- What the shard lacks, in words: names of keys that were lost or are not whole, `claims` if there are more seats than
-- leases and sessions can have, `damaged` if something was set aside that no administrator has seen, and `aside` if
-- some of that is gone. And how many leases, records and names are lacking, and how much was set aside: another number
-- is another damage.
local function missing()
  local leases, records, names = call('HLEN', LEASES), call('HLEN', RECORDS), call('HLEN', NAMES)
  local aside = call('HLEN', DAMAGED)
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
  -- A seat is a lease's, a session's, or in quarantine; how many linger, only the documents know.
  local most = leases + call('ZCARD', SESSIONS) + call('ZCARD', QUARANTINE)
  if limits.linger_ms == 0 and count_alive(SEATS) > most then words[#words + 1] = 'claims' end
  if aside > state.inspected then words[#words + 1] = 'damaged' end
  if aside < state.aside then words[#words + 1] = 'aside' end
  return table.concat(words, ' '), text(math.abs(leases - records) + math.max(0, leases - names) + aside)
end

-- By how many ms the time is ahead of the caller's estimate (negative: behind); 0 if it is right, or if the estimate
-- proves nothing. `any_generation`: the data are gone, see above.
local function time_ahead(any_generation)
  if caller.expected == 0 or (caller.clock_generation ~= state.line and not any_generation) then return 0 end
  local ahead = now - caller.expected
  if math.abs(ahead) <= LEAP or (ahead > 0 and now - state.vouched < ahead) then return 0 end
  return ahead
end

local function confirms_time()
  return caller.expected > 0 and caller.clock_generation == state.line and math.abs(now - caller.expected) <= LEAP
end

-- Corrects the time by an estimate that it is `ahead` of, or behind. A node that was alive stays alive, though its
-- deadline may have been written while the time was behind. The new generation is none that was known before, even if
-- the clock stands still.
local function correct_time(ahead, node)
  local skew = math.max(0, state.skew + ahead)
  local step = state.skew - skew
  if step > 0 then
    for _, other in ipairs(call('ZRANGEBYSCORE', NODES, '(' .. text(now), '+inf', 'LIMIT', 0, MOST_NODES)) do
      if string.sub(other, 1, 1) ~= NOTICE then
        local deadline = deadline_of(call('ZSCORE', NODES, other)) + step
        call('ZADD', NODES, text(math.min(deadline, now + step + limits.session_timeout_ms)), other)
      end
    end
  end
  -- A window that is over by the estimate is not opened again; but for one that was opened by the clock as it is now,
  -- and of which the caller does not know: its estimate began before.
  local knows_window = caller.epoch == state.epoch or state.opened > now
  if knows_window and state.recovering <= now - ahead then state.recovering = 0 end
  state.skew = skew
  state.line = math.max(server_now, state.line + 1, caller.clock_generation + 1, caller.epoch + 1)
  now = server_now - skew
  state.vouched = now
  call('HSET', META, 'skew', text(skew), 'line', text(state.line), 'vouched', text(now), 'recovering',
    text(state.recovering))
  local way = ahead > 0 and 'ahead ' or 'back '
  if ahead ~= 0 then audit('clock', '', node, '', '', way .. text(math.abs(ahead)), 0) end
end

-- Whether this is not the store that the caller knew, or its time may be wrong.
local function is_other_store()
  if confirms_time() then state.vouched = now end -- for this script
  return (caller.epoch > 0 and caller.epoch ~= state.epoch) or caller.seen > state.fence
    or (caller.life ~= state.life and not has_moved()) or time_ahead() > 0 or is_time_uncertain()
    or lost_keys() ~= ''
end

local function is_recovering()
  return state.recovering > now
end

-- A node that recovers, puts back or restores is in contact, and does not die in the window that waits for it: until it
-- has restored all that it has, its heartbeats are not carried out.
local function keep_recovering(node)
  call('ZADD', NODES, text(math.max(now + limits.session_timeout_ms, state.recovering)), node)
end

-- The answer to a node that does not know this store: it will restore what it has, and the window waits for it from
-- here on, whether it was known before or not.
local function send_to_recover(node)
  if is_recovering() then call('ZADD', AWAITED, 'NX', 0, node) end
  return { 'strange' }
end

-- The answer to a node that asks about its own session of a store it does not know, or nil.
local function refuse_other_store()
  if not load_limits() then return { caller.epoch > 0 and 'strange' or 'gone' } end
  if is_other_store() then return { 'strange' } end
  return nil
end

-- Keeps a value for inspection; one that was kept under this name before stays too.
local function keep_damaged(field, value)
  local before = call('HGET', DAMAGED, field)
  if before then call('HSET', DAMAGED, field .. '/' .. string.match(before, '^%d*'), before) end
  call('HSET', DAMAGED, field, text(now) .. ' ' .. value)
  call('HSET', META, 'aside', text(math.max(state.aside, call('HLEN', DAMAGED))))
end

-- A member of a set that names nothing: it is kept, and the set goes on without it.
local function drop_damaged(set, name, member)
  keep_damaged(name .. '/' .. member, call('ZSCORE', set, member) or '')
  call('ZREM', set, member)
end

local MENDED_WITHIN = 120000 -- ms: a node that has the receipt of a lease that was set aside restores it by then

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
  if kept and string.match(kept, '^%d* (.*)$') == record then
    call('HDEL', DAMAGED, field)
    state.aside = call('HLEN', DAMAGED)
    state.inspected = math.min(state.inspected, state.aside) -- else the next one would not be told
    call('HSET', META, 'inspected', text(state.inspected), 'aside', text(state.aside))
  end
end
