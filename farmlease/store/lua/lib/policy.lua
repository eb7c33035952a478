-- policy: the farm's policy as its key has it. Part of the scripts whose header names this file.

-- Returns its version, what is said of former names, and the sealed policy; nothing where there is none, or where it
-- does not decode: then it counts as lost, and whoever has one writes it over that.
local function policy_parts(stored)
  return string.match(stored or '', '^(%d+)([^\n]*)\n([%z\1-\31].*)$') -- a seal begins with its format's version
end
