-- SPDX-License-Identifier: Apache-2.0
-- Give a message back to its queue, where it is taken next.
--
-- KEYS  [1] Q: see queue_common.lua
-- ARGV  consumer, list, message, limit: 0 if nothing went wrong over the message; else the failures after which it is laid aside
-- Answer  'done', 'echo' or 'gone': see settle; 'buried' if it was laid aside

local outcome, limit = settle(ARGV[1], ARGV[2], ARGV[3]), tonumber(ARGV[4])
if outcome == 'done' and limit == 0 then
  give_back(ARGV[2], ARGV[3])
elseif outcome == 'done' and give_back_failed(ARGV[2], ARGV[3], limit) then
  return 'buried'
end
return outcome
