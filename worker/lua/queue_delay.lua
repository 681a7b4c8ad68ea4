-- SPDX-License-Identifier: Apache-2.0
-- Keep a message until it is due; a beat then moves it to its queue.
--
-- KEYS  [1] Q: see queue_common.lua
-- ARGV  consumer, list, message, due: ms since 1970
-- Answer  'due' if it is due by the server's clock, nothing changed; else 'done', 'echo' or 'gone': see settle

local consumer, list, message, due = unpack(ARGV)
if tonumber(due) <= now then
  return 'due'
end
local outcome = settle(consumer, list, message)
if outcome == 'done' then
  redis.call('ZADD', DELAYED, due, #list .. ':' .. list .. message)
end
return outcome
