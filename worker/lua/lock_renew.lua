-- SPDX-License-Identifier: Apache-2.0
-- Renew any number of leases. One that lapsed stays lapsed.
--
-- KEYS  [1] name: see lock_common.lua
-- ARGV  [1] lease: ms
--       [2] mode, [3] owner, and so on in pairs
-- Answer  for each owner the ms its lease has left; 0: it is lost
--
-- O(owners * log holders) and what purge and wake cost.

local lease = tonumber(ARGV[1])

local state = settle(lease, nil)
local left = {}
for i = 2, #ARGV, 2 do
  left[#left + 1] = extend(HELD[ARGV[i]], ARGV[i + 1], lease)
end
if state.has_changed then
  wake(state)
end
return left
