-- ARGV: known, fresh, quiet_ms: see look_at_epoch; mark on the caller's disk, then the nodes it knew when all was settled
-- Answers {mark, began_ms, 1 when settled else 0, ms to wait, nodes waited for…}
local known, fresh, quiet_ms, mark = unpack(ARGV, 1, 4)

local epoch = look_at_epoch(known, fresh, tonumber(quiet_ms))
if not epoch.is_settled and mark ~= epoch.mark then
  for position = 5, #ARGV do
    redis.call('SADD', PEERS, ARGV[position])
  end
end
local answer = { epoch.mark, epoch.began_ms, epoch.is_settled and 1 or 0, epoch.wait_ms }
for _, node in ipairs(epoch.waits_for) do
  answer[#answer + 1] = node
end
return answer
