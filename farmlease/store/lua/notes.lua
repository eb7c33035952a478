-- notes: a page of the audit's sealed comments and names, by their first bytes, which name the key. Writes nothing.
--
-- KEYS  1 audit     stream  decisions
-- ARGV  1 begin     '-' to begin, then what the page before answered
--       2 count     entries of the audit to a page
--
-- Answers
--   page, where the next one begins ('': there is none), then the first 33 bytes of each

local HEAD, SEALED = 33, 1 -- the format version that sealed bytes begin with
local OVERRIDE = 'override '

local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
local answer = { 'page', #entries == tonumber(ARGV[2]) and '(' .. entries[#entries][1] or '' }
for _, entry in ipairs(entries) do
  for _, value in ipairs(entry[2]) do
    if string.sub(value, 1, #OVERRIDE) == OVERRIDE then value = string.sub(value, #OVERRIDE + 1) end
    if #value >= HEAD and string.byte(value) == SEALED then answer[#answer + 1] = string.sub(value, 1, HEAD) end
  end
end
return answer
