-- forget: erase a user's name and an administrator's comments on them; the pseudonymous audit stays. Repeating it
-- changes nothing. No receipt brings the name back.
--
-- A field of a stream's entry cannot be changed: an entry with a comment is deleted, and one without it is added at the
-- end, whose `at` names the entry it stands for. So the audit has as many entries as before.
--
-- Uses lib/tombstones.lua
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  1 user      user index
--       2 after     '-' to begin, then what the page before answered
--       3 last      id of the last entry to look at; '' for the first page, which answers it
--       4 count     how many entries of the audit to look at
--       5 by        sealed name of the administrator, for the audit
--
-- Answers
--   page, id to go on after ('' when done), last id, what was erased: '', name, words or both
--   held, until ms or ''     the user has a lease here: the name is needed until that is over
--   recovering, until ms     whether the user has a lease here is not known before
--   more                     as acquire's

local user, after, last, by = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
if not load_limits() then return { 'page', '', '', '' } end
if is_recovering() then return { 'recovering', text(state.recovering) } end
if sweep() then return { 'more' } end
local lease, deadline = settled_lease(user)
if lease then return { 'held', text_or_none(deadline) } end
local mended = mended_until(user)
if mended then return { 'recovering', text(mended) } end

-- 1. Which entries have a comment?
if last == '' then
  local newest = call('XREVRANGE', AUDIT, '+', '-', 'COUNT', 1)[1]
  last = newest and newest[1] or '0-0'
end
local found = call('XRANGE', AUDIT, after == '-' and after or '(' .. after, last, 'COUNT', ARGV[4])
local words = {}
for _, entry in ipairs(found) do
  local fields = { at = entry[1] }
  for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end
  if fields.user == user and (fields.note or '') ~= '' then words[entry[1]] = fields end
end

-- 2. The comments go, and so do the name and what is left of a lease that is over.
for id, fields in pairs(words) do
  call('XADD', AUDIT, '*', 'event', fields.event or '', 'user', user, 'node', fields.node or '',
    'session', fields.session or '', 'device', fields.device or '', 'detail', fields.detail or '',
    'fence', fields.fence or '0', 'by', fields.by or '', 'note', '', 'at', fields.at)
  call('XDEL', AUDIT, id)
end
local name = call('HDEL', NAMES, user) == 1
forget_lease(user)
if name or not taken_with(graves_of(user), '') then
  bury(user, { [''] = now + math.max(GRAVE_KEPT, limits.lease_ms) }, next_fence())
end
local erased = name and (next(words) and 'both' or 'name') or next(words) and 'words' or ''
if erased ~= '' then audit('forgotten', user, '', '', '', erased, 0, by) end
return { 'page', #found == tonumber(ARGV[4]) and found[#found][1] or '', last, erased }
