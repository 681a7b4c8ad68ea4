-- SPDX-License-Identifier: Apache-2.0
-- Acknowledge a message: it is done, and its record goes.
--
-- KEYS  [1] Q: see queue_common.lua
-- ARGV  consumer, list, message
-- Answer  'done', 'echo' or 'gone': see settle

local outcome = settle(ARGV[1], ARGV[2], ARGV[3])
if outcome == 'done' then
  redis.call('DEL', failures_of(ARGV[3]))
end
return outcome
