-- limits: what a pool's shard knows of its policy. A pool that was removed keeps that until its last lease has ended.
-- Writes nothing.
--
-- KEYS  the shard's keys, as lib/shard.lua names them
-- ARGV  none
--
-- Answers
--   limits, then pairs: name, value
--   none            no policy has given this pool its limits

if not load_limits() then return { 'none' } end
local answer = { 'limits' }
for name, value in pairs(limits) do
  answer[#answer + 1] = name
  answer[#answer + 1] = type(value) == 'number' and text(value) or value
end
return answer
