-- SPDX-License-Identifier: Apache-2.0
-- Let a lease run out. Its holder was promised the time it has now and may be using it, so the lease is not cut below
-- that; it is only not renewed beyond the cap.
--
-- KEYS  [1] name: see lock_common.lua
-- ARGV  [1] owner
--       [2] ms from now beyond which the lease is not renewed
-- Answer  ms after which the lease is over at the latest; -1 if the owner holds none
--
-- O(log holders).

local owner = ARGV[1]

local deadline = tonumber(
  redis.call('ZSCORE', HELD.shared, owner) or redis.call('ZSCORE', HELD.exclusive, owner) or 0)
if deadline <= now then
  return -1
end
local cap = math.max(deadline, now + tonumber(ARGV[2]))
redis.call('HSET', CAPPED, owner, digits(cap))
return cap - now
