-- SPDX-License-Identifier: Apache-2.0
-- The keys of a lock, and what all its transitions share. Follows lock_server.lua, precedes the transition.
--
-- KEYS[1] is the lock's name; every other key is it plus a suffix, hence in its slot if it holds a hash tag.
--
--   <name>                   HASH  token       of the current phase; only grows
--                                  phase       'shared' or 'exclusive': mode of the latest grant
--                                  ticket      the last one drawn
--                                  lease       ms, the longest any client asked for
--                                  run         which run of the server wrote this
--                                  quarantine  ms; no exclusive grant before this time
--   <name>:held:shared       ZSET  owner -> ms at which its lease lapses
--   <name>:held:exclusive    ZSET  owner -> ms at which its lease lapses; at most one
--   <name>:queue:shared      ZSET  owner -> ticket
--   <name>:queue:exclusive   ZSET  owner -> ticket
--   <name>:waiting           ZSET  owner -> ms until which it keeps its place without asking again
--   <name>:since             HASH  owner -> ms at which it began to hold or to wait
--   <name>:capped            HASH  owner -> ms beyond which its lease is not renewed
--   <name>:released          ZSET  owner -> ms until which a late acquire of it is refused
--   <name>:bell:<owner>      LIST  an element when the owner should ask again; expires
--
-- All times are the server's, in ms but for the one in a token. A phase is a stretch of grants of one mode without a grant of the other between them.

local STATE = KEYS[1]
local HELD = { shared = KEYS[1] .. ':held:shared', exclusive = KEYS[1] .. ':held:exclusive' }
local QUEUE = { shared = KEYS[1] .. ':queue:shared', exclusive = KEYS[1] .. ':queue:exclusive' }
local WAITING = KEYS[1] .. ':waiting'
local SINCE = KEYS[1] .. ':since'
local CAPPED = KEYS[1] .. ':capped'
local RELEASED = KEYS[1] .. ':released'
local BELL = KEYS[1] .. ':bell:'

local now_us = server_us()
local now = math.floor(now_us / 1000)

-- Numbers beyond 10^14 would otherwise be written as 1.79e+15.
local function digits(number)
  return string.format('%.0f', number)
end

local function leave_queue(owner)
  redis.call('ZREM', QUEUE.shared, owner)
  redis.call('ZREM', QUEUE.exclusive, owner)
  redis.call('ZREM', WAITING, owner)
  redis.call('DEL', BELL .. owner)
end

-- Read the state; begin a new one if the server lost it, and a quarantine if it may have lost part of it.
--   lease  ms the caller asks for, or 0
--   floor  the highest token the caller's resource has seen, or nil if it cannot say
-- A resource that has seen no token at all was never written under a lock, so nobody can still be holding one.
local function open_state(lease, floor)
  local row = redis.call('HMGET', STATE, 'token', 'phase', 'lease', 'run', 'quarantine')
  local state = {
    token = tonumber(row[1] or 0), phase = row[2], lease = tonumber(row[3] or 0), run = row[4],
    quarantine = tonumber(row[5] or 0),
  }
  local run = server_run()
  if state.run ~= run or lease > state.lease then
    state.lease = math.max(state.lease, lease)
    if state.run ~= run then
      -- The copy may be older than tokens that were issued: the next grant begins a phase of its own.
      state.phase = false
      local untouched = not state.run and floor == 0
      state.quarantine = untouched and 0 or now + state.lease
    end
    redis.call('HSET', STATE, 'run', run, 'lease', state.lease, 'quarantine', state.quarantine,
      'phase', state.phase or '')
  end
  if state.quarantine > now + state.lease then -- the clock was set back
    state.quarantine = now + state.lease
    redis.call('HSET', STATE, 'quarantine', state.quarantine)
  end
  return state
end

-- Forget leases and waiters that are past their time. Returns whether there were any. A deadline further away than the
-- longest lease was written before the clock was set back; it is cut down. O(expired).
local function purge(longest)
  local expired = 0
  for _, deadlines in ipairs({ HELD.shared, HELD.exclusive, WAITING }) do
    for _, owner in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', now)) do
      redis.call('ZREM', deadlines, owner)
      redis.call('HDEL', SINCE, owner)
      redis.call('HDEL', CAPPED, owner)
      if deadlines == WAITING then
        leave_queue(owner)
      end
      expired = expired + 1
    end
    for _, owner in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '(' .. digits(now + longest), '+inf')) do
      redis.call('ZADD', deadlines, 'XX', now + longest, owner)
    end
  end
  redis.call('ZREMRANGEBYSCORE', RELEASED, '-inf', now)
  return expired > 0
end

-- What every transition begins with: state and sets as they are at this time. Sets state.has_changed if somebody's
-- time was over.
local function settle(lease, floor)
  local state = open_state(lease, floor)
  state.has_changed = purge(state.lease)
  return state
end

-- Renew the lease of an owner. Returns the ms it has left, 0 if it lapsed: what lapsed was purged and never comes back.
local function extend(held, owner, lease)
  if not redis.call('ZSCORE', held, owner) then
    return 0
  end
  local deadline = math.min(now + lease, tonumber(redis.call('HGET', CAPPED, owner) or now + lease))
  redis.call('ZADD', held, 'XX', deadline, owner)
  return math.max(0, deadline - now)
end

-- Ring those whose turn it is: the readers ahead of the first waiting writer, or that writer. They ask again and are
-- granted then. Who is rung and stays silent for a third of a lease loses its place. O(rung).
local function wake(state)
  if redis.call('ZCARD', HELD.exclusive) > 0 then
    return
  end
  local writer = redis.call('ZRANGE', QUEUE.exclusive, 0, 0, 'WITHSCORES')
  local quarantined = now < state.quarantine
  local turn = redis.call('ZRANGEBYSCORE', QUEUE.shared, '-inf',
    (writer[1] and not quarantined) and '(' .. writer[2] or '+inf')
  if #turn == 0 and writer[1] and not quarantined and redis.call('ZCARD', HELD.shared) == 0 then
    turn = { writer[1] }
  end
  local claim = math.ceil(state.lease / 3)
  for _, owner in ipairs(turn) do
    if redis.call('EXISTS', BELL .. owner) == 0 then
      redis.call('LPUSH', BELL .. owner, '1')
      redis.call('PEXPIRE', BELL .. owner, state.lease)
      redis.call('ZADD', WAITING, 'XX', 'LT', now + claim, owner)
    end
  end
end
