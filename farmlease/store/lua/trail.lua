-- trail: a page of an audit, a pool's or the farm's own. Writes nothing.
-- An entry is returned as it stands: the reader judges it.
--
-- KEYS  1 audit     stream  decisions
--       2 names     hash    user index -> sealed user name
-- ARGV  1 after     id: entries later than this one; '-': from the first
--       2 user      user indexes with a blank between them: only theirs, or ''
--       3 count     how many entries to look at
--
-- Answers
--   page, id of the last entry looked at, '' if there is none, then triples: id, sealed name, list of fields and values

local after, user = ARGV[1], ARGV[2]
local found = redis.call('XRANGE', KEYS[1], after == '-' and after or '(' .. after, '+', 'COUNT', ARGV[3])
local answer = { 'page', #found > 0 and found[#found][1] or '' }
for _, entry in ipairs(found) do
  local subject = ''
  for at = 1, #entry[2], 2 do
    if entry[2][at] == 'user' then subject = entry[2][at + 1] end
  end
  if user == '' or string.find(' ' .. user .. ' ', ' ' .. subject .. ' ', 1, true) then
    answer[#answer + 1] = entry[1]
    answer[#answer + 1] = subject ~= '' and redis.call('HGET', KEYS[2], subject) or ''
    answer[#answer + 1] = entry[2]
  end
end
return answer
