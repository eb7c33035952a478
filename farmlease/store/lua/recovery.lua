-- recovery: does the store still hold what its nodes know that it held? Part of every script of a shard.
--
-- An *epoch* is one uninterrupted life of a shard's data. Each node says which one it knows, and the highest fence it
-- has seen. A new one begins where the data is gone or older than that, where another server, or another life of it,
-- holds the data, and where its clock has leapt ahead. It begins with a *recovery window*: nobody new is let in until
-- every node known before has restored what it has, or the window is over.
--
-- In meta: epoch (number, grows), life (of the server that holds the data), recovering (end of the window, ms), blank
-- ('1': this epoch began with nothing, by somebody who knew of nothing before), skew (ms by which the clock has leapt
-- ahead), vouched (clock when a node last found it right).

local LEAP = 60000 -- ms that the clock may differ from what a node counted by itself
local MOST_NODES = 10000

-- By how many ms the clock has leapt ahead of what the caller counted; 0 if it has not. One whose own count stood still
-- is refuted by whoever found the clock right in the meantime.
local function leap(expected)
  local ahead = expected > 0 and now - expected or 0
  return ahead > LEAP and raw - limits.vouched >= ahead and ahead or 0
end

-- Whether the clock is back where it was before it had leapt ahead.
local function is_back(expected)
  return limits.skew > 0 and expected > 0 and now < expected - LEAP
end

-- Whether this is not the store that the caller knew.
local function estranged(epoch, seen, life, expected)
  return (epoch > 0 and epoch ~= limits.epoch) or seen > limits.fence or life ~= limits.life
    or leap(expected) > 0 or is_back(expected)
end

-- The answer that sends a node away which asks about a session of its own, or nil.
local function no_session_here(epoch, seen, life, expected)
  if not load_limits() then return { epoch > 0 and 'strange' or 'gone' } end
  if estranged(epoch, seen, life, expected) then return { 'strange' } end
  return nil
end

local function is_recovering()
  return limits.recovering > now
end
