-- SPDX-License-Identifier: Apache-2.0
-- The keys of the queue's records, and what its transitions share. Follows lock_server.lua, precedes the transition.
--
-- KEYS[1] is the prefix Q. Queues themselves are the lists that stock Celery publishes to: LPUSH at the left, taken at
-- the right. `list` is such a list's key, `consumer` names one worker process.
--
--   Q:consumers                ZSET    consumer -> ms at which it counts as dead unless it gives a sign of life
--   Q:sources:<consumer>       SET     of the lists it takes from
--   Q:taken:<consumer>:<list>  LIST    of messages delivered to it and not settled. A STRING once the consumer is gone: a
--                                      BLMOVE of it that is still under way is then refused and leaves the message
--   Q:gone:<consumer>          STRING  it was dead or left; expires. Whatever it says from then on changes nothing
--   Q:failed:<sha1>            STRING  how often a consumer died or a task's process was lost over this message; expires
--   Q:delayed                  ZSET    '<bytes of list>:<list><message>' -> ms at which it is due
--   Q:dead                     ZSET    letter -> ms at which it was laid aside; a letter is the message's SHA-1
--   Q:dead:<letter>            HASH    list, reason, message
--   Q:run                      STRING  which run of the server the signs of life were given to
--   Q:beat_at                  STRING  ms at which anybody gave the last one
--
-- All times are the server's, in ms.

local Q = KEYS[1]
local CONSUMERS, DELAYED, DEAD = Q .. ':consumers', Q .. ':delayed', Q .. ':dead'
local DAY_MS, WEEK_MS = 86400000, 604800000

local now = math.floor(server_us() / 1000)

-- Numbers beyond 10^14 would otherwise be written as 1.79e+15.
local function digits(number)
  return string.format('%.0f', number)
end

local function sources_of(consumer)
  return Q .. ':sources:' .. consumer
end

local function taken_by(consumer, list)
  return Q .. ':taken:' .. consumer .. ':' .. list
end

local function is_gone(consumer)
  return redis.call('EXISTS', Q .. ':gone:' .. consumer) == 1
end

local function failures_of(message)
  return Q .. ':failed:' .. redis.sha1hex(message)
end

-- Lay a message aside with its reason. A letter that is there already stays as it is.
local function bury(list, message, reason)
  local letter = redis.sha1hex(message)
  redis.call('ZADD', DEAD, 'NX', digits(now), letter)
  redis.call('HSET', DEAD .. ':' .. letter, 'list', list, 'reason', reason, 'message', message)
end

-- Put a message back where it is taken next.
local function give_back(list, message)
  redis.call('RPUSH', list, message)
end

-- Put back a message over which somebody died, unless that happened `limit` times already. Returns whether it was laid aside.
local function give_back_failed(list, message, limit)
  local failures = redis.call('INCR', failures_of(message))
  redis.call('PEXPIRE', failures_of(message), WEEK_MS)
  if failures < limit then
    give_back(list, message)
    return false
  end
  redis.call('DEL', failures_of(message))
  bury(list, message, 'delivered ' .. failures .. ' times, and each time its worker or its process died')
  return true
end

-- Take one message out of a consumer's record. Answers 'done'; 'echo' if it is not there, because this call repeats one
-- whose reply was lost; 'gone' if the consumer lost all it had.
local function settle(consumer, list, message)
  if is_gone(consumer) then
    return 'gone'
  end
  return redis.call('LREM', taken_by(consumer, list), 1, message) == 1 and 'done' or 'echo'
end

-- End a consumer: give each of its messages to `return_one(list, message)`, and refuse it from now on. O(its messages).
local function end_consumer(consumer, return_one)
  local returned = 0
  for _, list in ipairs(redis.call('SMEMBERS', sources_of(consumer))) do
    local taken = taken_by(consumer, list)
    if redis.call('TYPE', taken).ok == 'list' then
      -- The latest taken is at the left and goes back first, so that the order is as it was.
      for _, message in ipairs(redis.call('LRANGE', taken, 0, -1)) do
        return_one(list, message)
        returned = returned + 1
      end
      redis.call('DEL', taken)
    end
    redis.call('SET', taken, 'gone', 'PX', DAY_MS)
  end
  redis.call('DEL', sources_of(consumer))
  redis.call('ZREM', CONSUMERS, consumer)
  redis.call('SET', Q .. ':gone:' .. consumer, '1', 'PX', DAY_MS)
  return returned
end
