-- node_entry: what the nodes' key has of one node. Part of the scripts whose header names this file.

-- Returns the last report of a node, with what is wished of it; nil where there is none, or where it does not decode:
-- then the node's next report writes it anew.
local function entry_of(text)
  local decoded, entry = pcall(cjson.decode, text or '')
  local whole = decoded and type(entry) == 'table' and type(entry.seen) == 'number' and type(entry.wish) == 'table'
    and type(entry.wish.version) == 'number'
  return whole and entry or nil
end
