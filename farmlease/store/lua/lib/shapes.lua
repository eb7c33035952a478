-- shapes: does a member of a key look as farmlease writes it? Part of the scripts whose header names this file. What
-- another version may write looks so too: only what cannot be read at all is foreign.

local NODE_AT = '^#?#?[^#/]+#[^#/]*$'
local SESSION_AT = '^[^#/]+#[^/]*/.+/([^/]+)$' -- node#incarnation/session/user
local NOTICE_AT = '^#[^#/]+#[^/]*/.+/([^/]+)/%d+/[%l_]+$' -- the same, with fence and reason

local function is_user(member)
  return #member == 22 and string.match(member, '^[%w_-]+$') ~= nil
end

local function is_seat(member)
  if string.match(member, '^@[^#/]+$') then return true end
  local user, rest = string.match(member, '^([^/]+)(.*)$')
  return user ~= nil and is_user(user) and (rest == '' or string.match(rest, '^/.') ~= nil)
end

local function is_of_session(member)
  local user = string.match(member, SESSION_AT)
  return user ~= nil and is_user(user)
end

local function is_sealed(value)
  return #value >= 33 and string.byte(value) < 32 -- the format's version is the first byte
end

local function is_json(value)
  local decoded, found = pcall(cjson.decode, value)
  return decoded and type(found) == 'table'
end

local function is_word(member)
  return string.match(member, '^%l[%l_]*$') ~= nil
end

-- By the last word of a key's name, the farm's own with `farm_` before it: what its members look like, and the values
-- of a hash.
local SHAPES = {
  meta = is_word,
  leases = function(member, value) return is_user(member) and is_json(value) end,
  records = function(member) return is_user(member) end, -- one that does not open is for an administrator to judge
  names = function(member, value) return is_user(member) and is_sealed(value) end,
  seats = is_seat,
  nodes = function(member) return string.match(member, NODE_AT) ~= nil end,
  sessions = function(member)
    local user = string.match(member, NOTICE_AT)
    return is_of_session(member) or (user ~= nil and is_user(user))
  end,
  queue = is_of_session,
  waits = is_of_session,
  holds = is_of_session,
  reserved = function(member)
    local seat = string.match(member, '^[^/]+/(.+)$')
    return seat ~= nil and is_seat(seat)
  end,
  quarantine = is_user,
  barred = is_user,
  awaited = function(member) return string.match(member, NODE_AT) ~= nil end,
  usage = function(member) return string.match(member, '^%d+ %d+ %d+ %d+ %d+ %d+ %d+ %S+$') ~= nil end,
  over = function(member, value) return is_user(member) and is_json(value) end,
  over_numbers = is_user,
  farm_counts = function(member, value)
    return (is_word(member) and tonumber(value) ~= nil) or (string.match(member, '^#%l+$') ~= nil
      and string.match(value, '^#%d+$') ~= nil)
  end,
  farm_noted = function(member)
    local user, event = string.match(member, '/([^/]+)/([^/]+)$')
    return user ~= nil and is_user(user) and is_word(event) and string.match(member, '^[^#/]+#[^/]*/') ~= nil
  end,
  farm_names = function(member, value) return is_user(member) and is_sealed(value) end,
  farm_pools = function(member, value) return string.match(member, '^[^/#{}]+$') ~= nil and tonumber(value) ~= nil end,
  farm_policies = function(member, value)
    return (string.match(member, '^%d+ by$') or string.match(member, '^%d+ %d* %S*$')) ~= nil and is_sealed(value)
  end,
  farm_nodes = function(member, value) return string.match(member, '^[^#/]+$') ~= nil and is_json(value) end,
  farm_rings = function(member, value)
    local report = string.match(value, '^%d+ (.*)$')
    return string.match(member, '^[^#/]+$') ~= nil and report ~= nil and is_json(report)
  end,
}

-- An entry of an audit: fields and values, one after the other.
local function is_entry(entry)
  local found = {}
  for at = 1, #entry - 1, 2 do found[entry[at]] = entry[at + 1] end
  return found.event ~= nil and is_word(found.event) and found.node ~= nil and found.user ~= nil
    and (found.fence == nil or tonumber(found.fence) ~= nil)
end
