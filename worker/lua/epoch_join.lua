-- ARGV: known, fresh, quiet_ms: see look_at_epoch
-- Answers {id, mark, began_ms, 1 when settled else 0, ms to wait, nodes waited for…}
local epoch = look_at_epoch(ARGV[1], ARGV[2], tonumber(ARGV[3]))
local answer = { epoch.id, epoch.mark, epoch.began_ms, epoch.is_settled and 1 or 0, epoch.wait_ms }
for _, node in ipairs(epoch.waits_for) do
  answer[#answer + 1] = node
end
return answer
