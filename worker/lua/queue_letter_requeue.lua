-- SPDX-License-Identifier: Apache-2.0
-- Give a letter another chance: it goes to the end of its queue, its failures forgotten.
--
-- KEYS  [1] Q: see queue_common.lua
-- ARGV  [1] letter
-- Answer  1 if it was there

local row = redis.call('HMGET', DEAD .. ':' .. ARGV[1], 'list', 'message')
if not row[2] then
  return 0
end
redis.call('LPUSH', row[1], row[2])
redis.call('DEL', DEAD .. ':' .. ARGV[1])
return redis.call('ZREM', DEAD, ARGV[1])
