-- SPDX-License-Identifier: Apache-2.0
-- Show a node as alive. Follows clock.lua and epoch.lua.
--
-- ARGV  name, view (JSON), ttl_ms, then known, fresh, quiet_ms: see look_at_epoch
-- Answers {1 when the node is marked as recovered, 0 when it never was or Redis lost the mark, all nodes ever seen, or none
-- while that may not be all…}
--
-- Keys:
--   P:nodes            HASH  name -> view (JSON)
--   P:nodes:seen       ZSET  name by the time of the last heartbeat, in ms
--   P:nodes:expiry     ZSET  name by the time from which it counts as gone, in ms
--   P:nodes:recovery   HASH  name -> "recovering:<token>", or "recovered:<token>": the mark
--
-- Same effect and answer when sent twice, because it never sets the mark.
local name, view, ttl_ms = unpack(ARGV, 1, 3)

local epoch = look_at_epoch(ARGV[4], ARGV[5], tonumber(ARGV[6]))
redis.call('HSET', P .. ':nodes', name, view)
redis.call('ZADD', P .. ':nodes:seen', string.format('%.0f', NOW_MS), name)
redis.call('ZADD', P .. ':nodes:expiry', string.format('%.0f', NOW_MS + ttl_ms), name)
local answer = { is_recovered(name) and 1 or 0 }
if epoch.is_settled then
  for _, node in ipairs(redis.call('HKEYS', P .. ':nodes')) do
    answer[#answer + 1] = node
  end
end
return answer
