-- dry: what a script writes is kept in memory, for this call alone, and what it reads has that in it. So explain runs
-- acquire's own lines, and nothing changes. Stands around all of a script whose header says which others it runs: what
-- follows calls this `redis` instead of the server's.
--
-- It knows the commands that those scripts use; another one is an error and does not reach the server. Of a stream
-- nothing is read, so that nothing is kept. How much is kept is bounded by what one call of those scripts writes.

local redis = (function(server)
  local hashes = {} -- key -> {field -> value; false: removed}
  local sets = {} -- key of a zset -> {member -> {was, is}}: scores as numbers, nil where it is not in the set
  local counts = {} -- key of a zset -> {bounds, fits, number}: what was last counted there, kept right by each write

  local function number(score)
    if score == 'inf' or score == '+inf' then return math.huge end
    if score == '-inf' then return -math.huge end
    return score and tonumber(score) or nil
  end

  local function put(set, member, score)
    sets[set] = sets[set] or {}
    local change = sets[set][member] or { was = number(server.call('ZSCORE', set, member)) }
    local known, before = counts[set], change.was
    if sets[set][member] then before = change.is end
    if known and known.fits(member, before) then known.number = known.number - 1 end
    if known and known.fits(member, score) then known.number = known.number + 1 end
    sets[set][member], change.is = change, score
  end

  -- Whether one text comes before another, byte by byte: Lua's own order may be that of the server's language.
  local function precedes(one, other)
    for at = 1, math.min(#one, #other) do
      local left, right = string.byte(one, at), string.byte(other, at)
      if left ~= right then return left < right end
    end
    return #one < #other
  end

  -- Says of a member and its score whether it lies between two bounds, as the commands have them: of texts
  -- (`lexical`), or of scores.
  local function between(lexical, low, high)
    local open_low, open_high = string.sub(low, 1, 1) == '(', string.sub(high, 1, 1) == '('
    if lexical then
      local from, to = string.sub(low, 2), string.sub(high, 2)
      return function(member, score)
        return score and (low == '-' or precedes(from, member) or from == member and not open_low)
          and (high == '+' or precedes(member, to) or to == member and not open_high)
      end
    end
    local from, to = number(open_low and string.sub(low, 2) or low), number(open_high and string.sub(high, 2) or high)
    return function(_, score)
      return score and (score > from or score == from and not open_low)
        and (score < to or score == to and not open_high)
    end
  end

  local function counted(command, set, low, high)
    local bounds, known = command .. low .. high, counts[set]
    if known and known.bounds == bounds then return known.number end
    local fits, number = between(command == 'ZLEXCOUNT', low, high), server.call(command, set, low, high)
    for member, change in pairs(sets[set]) do
      if fits(member, change.was) then number = number - 1 end
      if fits(member, change.is) then number = number + 1 end
    end
    counts[set] = { bounds = bounds, fits = fits, number = number }
    return number
  end

  -- The entries {member, score} between two bounds in their order: `most` of them (-1: all) after the first `passed`.
  local function ordered(lexical, set, low, high, passed, most)
    local changes, fits, wanted, entries = sets[set], between(lexical, low, high), most, {}
    for _ in pairs(changes) do wanted = most >= 0 and wanted + 1 or -1 end
    if wanted >= 0 then wanted = wanted + passed end
    local found = lexical and server.call('ZRANGEBYLEX', set, low, high, 'LIMIT', 0, wanted)
      or server.call('ZRANGEBYSCORE', set, low, high, 'WITHSCORES', 'LIMIT', 0, wanted)
    for at = 1, #found, lexical and 1 or 2 do
      if not changes[found[at]] then entries[#entries + 1] = { found[at], lexical and 0 or number(found[at + 1]) } end
    end
    for member, change in pairs(changes) do
      if fits(member, change.is) then entries[#entries + 1] = { member, change.is } end
    end
    table.sort(entries, function(one, other)
      if one[2] ~= other[2] then return one[2] < other[2] end
      return precedes(one[1], other[1])
    end)
    local answer = {}
    for at = passed + 1, most < 0 and #entries or math.min(#entries, passed + most) do
      answer[#answer + 1] = entries[at]
    end
    return answer
  end

  local function words_of(entries, with_scores)
    local words = {}
    for _, entry in ipairs(entries) do
      words[#words + 1] = entry[1]
      if with_scores then words[#words + 1] = entry[2] == math.huge and 'inf' or string.format('%.17g', entry[2]) end
    end
    return words
  end

  -- What stands behind the bounds of a range: the number of entries to pass and how many at most, whether with scores.
  local function options_of(words)
    local passed, most, with_scores = 0, -1, false
    for at, word in ipairs(words) do
      if word == 'WITHSCORES' then with_scores = true end
      if word == 'LIMIT' then passed, most = tonumber(words[at + 1]), tonumber(words[at + 2]) end
    end
    return passed, most, with_scores
  end

  local reads = {} -- of a zset that was written to

  function reads.ZSCORE(set, member)
    local change = sets[set][member]
    if not change then return server.call('ZSCORE', set, member) end
    return change.is and words_of({ { member, change.is } }, true)[2] or false
  end

  function reads.ZCARD(set)
    return counted('ZCOUNT', set, '-inf', '+inf')
  end

  function reads.ZCOUNT(set, low, high)
    return counted('ZCOUNT', set, low, high)
  end

  function reads.ZLEXCOUNT(set, low, high)
    return counted('ZLEXCOUNT', set, low, high)
  end

  function reads.ZRANGEBYSCORE(set, low, high, ...)
    local passed, most, with_scores = options_of({ ... })
    return words_of(ordered(false, set, low, high, passed, most), with_scores)
  end

  function reads.ZRANGEBYLEX(set, low, high, ...)
    local passed, most = options_of({ ... })
    return words_of(ordered(true, set, low, high, passed, most))
  end

  function reads.ZREVRANGE(set, first, last, ...)
    local _, _, with_scores = options_of({ ... })
    local entries, answer = ordered(false, set, '-inf', '+inf', 0, -1), {}
    for at = #entries - first, math.max(1, #entries - last), -1 do answer[#answer + 1] = entries[at] end
    return words_of(answer, with_scores)
  end

  function reads.ZRANK(set, member)
    for rank, entry in ipairs(ordered(false, set, '-inf', '+inf', 0, -1)) do
      if entry[1] == member then return rank - 1 end
    end
    return false
  end

  local commands = {} -- all others that are known

  function commands.ZADD(set, score, member, other)
    if score == 'NX' then
      local known = sets[set] and sets[set][other]
      if known and known.is or not known and server.call('ZSCORE', set, other) then return end
      score, member = member, other
    end
    put(set, member, number(score))
  end

  function commands.ZREM(set, member)
    put(set, member, nil)
  end

  function commands.ZREMRANGEBYSCORE(set, low, high)
    sets[set] = sets[set] or {}
    for _, member in ipairs(reads.ZRANGEBYSCORE(set, low, high)) do put(set, member, nil) end
  end

  function commands.HGET(set, field)
    local value = hashes[set] and hashes[set][field]
    if value == nil then return server.call('HGET', set, field) end
    return value
  end

  function commands.HGETALL(set)
    local all, answer, found = {}, {}, server.call('HGETALL', set)
    for at = 1, #found, 2 do all[found[at]] = found[at + 1] end
    for field, value in pairs(hashes[set] or {}) do all[field] = value or nil end
    for field, value in pairs(all) do
      answer[#answer + 1] = field
      answer[#answer + 1] = value
    end
    return answer
  end

  function commands.HLEN(set)
    return #commands.HGETALL(set) / 2
  end

  function commands.HSET(set, ...)
    local words = { ... }
    hashes[set] = hashes[set] or {}
    for at = 1, #words, 2 do hashes[set][words[at]] = words[at + 1] end
  end

  function commands.HSETNX(set, field, value)
    if not commands.HGET(set, field) then commands.HSET(set, field, value) end
  end

  function commands.HDEL(set, field)
    commands.HSET(set, field, false)
  end

  function commands.XADD() end

  local as_they_are = { TIME = true, EXISTS = true } -- which keys there are is asked before anything is written

  local answering = {}

  function answering.call(command, ...)
    local set = ...
    if as_they_are[command] or reads[command] and not sets[set] then return server.call(command, ...) end
    return (reads[command] or commands[command])(...)
  end

  return answering
end)(redis)
