-- SPDX-License-Identifier: Apache-2.0
-- Give a consumer's sign of life, the first of which makes it known; then do what any living consumer does for all: end
-- the dead ones, each of whose messages goes back to its queue once, and move what is due to its queue.
--
-- KEYS  [1] Q: see queue_common.lua
-- ARGV  [1] consumer
--       [2] lease: ms for which the sign is good
--       [3] limit: failures after which a message is laid aside
--       [4] the lists it takes from, and every further one
-- Answer  {'alive', messages in its records, {message laid aside, ...}, {dead consumer, its messages, ...}}, or {'gone'}
--
-- O(log consumers) and O(what moves); of what is due, a thousand messages a call.

local consumer, lease, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

if is_gone(consumer) then
  return { 'gone' }
end

-- While the server was away or stood still nobody could give a sign of life, a copy that took over may be behind, and a
-- clock may step: all get one lease. Silence is what two beats of anybody would have broken, a quarter of a lease each. It
-- also follows when the last consumer of all died: then its messages wait one lease after somebody else has come.
local last = tonumber(redis.call('GET', Q .. ':beat_at') or now)
redis.call('SET', Q .. ':beat_at', digits(now))
if now - last > lease / 2 or redis.call('GET', Q .. ':run') ~= server_run() then
  redis.call('SET', Q .. ':run', server_run())
  for _, each in ipairs(redis.call('ZRANGE', CONSUMERS, 0, -1)) do
    redis.call('ZADD', CONSUMERS, 'GT', digits(now + lease), each)
  end
end

redis.call('ZADD', CONSUMERS, digits(now + lease), consumer)
local held = 0
for index = 4, #ARGV do
  redis.call('SADD', sources_of(consumer), ARGV[index])
  held = held + redis.call('LLEN', taken_by(consumer, ARGV[index]))
end

local buried = {}
local function return_failed(list, message)
  if give_back_failed(list, message, limit) then
    buried[#buried + 1] = message
  end
end

local ended = {}
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', CONSUMERS, '-inf', digits(now))) do
  ended[#ended + 1] = dead
  ended[#ended + 1] = end_consumer(dead, return_failed)
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, '-inf', digits(now), 'LIMIT', 0, 1000)) do
  local length, start = string.match(member, '^(%d+):()')
  give_back(string.sub(member, start, start + length - 1), string.sub(member, start + length))
  redis.call('ZREM', DELAYED, member)
end

return { 'alive', held, buried, ended }
