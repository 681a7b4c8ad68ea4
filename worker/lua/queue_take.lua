-- SPDX-License-Identifier: Apache-2.0
-- Deliver messages: each leaves its queue and enters the consumer's record in one step. Blocks on nothing.
--
-- KEYS  [1] Q: see queue_common.lua
-- ARGV  [1] consumer: known by a beat
--       [2] count: at most so many messages, >= 1
--       [3] a list to take from, and every further one, the first one first
-- Answer  {'taken', list, message, ...}, or {'gone'}
--
-- Refused while memory is full, as BLMOVE is: what would be begun then could not say so.
-- A lost reply leaves messages in the record that the consumer does not know of; it finds them there and gives them back.

local consumer, count = ARGV[1], tonumber(ARGV[2])

if is_gone(consumer) then
  return { 'gone' }
end
local answer = { 'taken' }
for index = 3, #ARGV do
  while #answer < 2 * count do
    local message = redis.call('LMOVE', ARGV[index], taken_by(consumer, ARGV[index]), 'RIGHT', 'LEFT')
    if not message then
      break
    end
    answer[#answer + 1] = ARGV[index]
    answer[#answer + 1] = message
  end
end
return answer
