-- SPDX-License-Identifier: Apache-2.0
-- End a lease, or give up a place in the queue, and ring whose turn it is then.
--
-- KEYS  [1] name: see lock_common.lua
-- ARGV  [1] owner
--       [2] lease: ms for which an acquire of this owner still under way is refused
-- Answer  'released'   it held the lock until now
--         'withdrawn'  it waited
--         'already'    it released or gave up before
--         'lost'       its lease or its place had lapsed, or it never had one
--
-- O(log holders) and what purge and wake cost.

local owner, lease = ARGV[1], tonumber(ARGV[2])

local state = settle(lease, nil)
local answer = redis.call('ZSCORE', RELEASED, owner) and 'already' or 'lost'
if redis.call('ZREM', HELD.shared, owner) + redis.call('ZREM', HELD.exclusive, owner) > 0 then
  redis.call('HDEL', CAPPED, owner)
  answer = 'released'
elseif redis.call('ZREM', WAITING, owner) > 0 then
  leave_queue(owner)
  answer = 'withdrawn'
end
redis.call('HDEL', SINCE, owner)
redis.call('ZADD', RELEASED, now + lease, owner)
wake(state)
return answer
