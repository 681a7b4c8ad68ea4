-- SPDX-License-Identifier: Apache-2.0
-- Lay a message aside that nobody can run.
--
-- KEYS  [1] Q: see queue_common.lua
-- ARGV  consumer, list, message, reason
-- Answer  'done', 'echo' or 'gone': see settle

local outcome = settle(ARGV[1], ARGV[2], ARGV[3])
if outcome == 'done' then
  redis.call('DEL', failures_of(ARGV[3]))
  bury(ARGV[2], ARGV[3], ARGV[4])
end
return outcome
