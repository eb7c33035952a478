-- farm: have the farm's own keys lost members to somebody else? Part of the scripts that write them.
--
-- In `counts` stands beside the events, as #name, how many members the keys names, noted, nodes, rings and policies had
-- when one of these scripts last wrote them: '#' and the number, which no sum of the events counts. Where there are
-- fewer, the script that writes the key next audits `lost`, and goes on from what is there. A key of another type is
-- told by others: here it counts as nothing.

local function is_of_type(set, kind)
  return redis.call('TYPE', set).ok == kind
end

-- Whether the key of this name had more members. `set`: counts.
local function has_lost(set, name, size)
  if not is_of_type(set, 'hash') then return false end
  local known = string.match(redis.call('HGET', set, '#' .. name) or '', '^#(%d+)$')
  return known ~= nil and tonumber(known) > size
end

-- `set`: the audit of the farm.
local function audit_loss(set, name, node)
  if not is_of_type(set, 'stream') and not is_of_type(set, 'none') then return end
  redis.call('XADD', set, 'MAXLEN', '~', 100000, '*', 'event', 'lost', 'user', '', 'node', node, 'session', '',
    'detail', name)
end

-- Notes how many members a key has, and that it had lost some, which `node` found out. `set`: counts; `log`: the audit.
local function note_size(set, log, name, size, lost, node)
  if not is_of_type(set, 'hash') then return end
  local value = string.format('#%.0f', size)
  if redis.call('HGET', set, '#' .. name) ~= value then redis.call('HSET', set, '#' .. name, value) end
  if lost then
    redis.call('HINCRBY', set, 'lost', 1)
    audit_loss(log, name, node)
  end
end
