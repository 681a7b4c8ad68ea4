-- SPDX-License-Identifier: Apache-2.0
-- Grant a lease, or keep a place in the queue. Asking first, asking again after the bell and asking again because a
-- reply was lost are the same call: an owner has at most one lease and one place.
--
-- KEYS  [1] name: see lock_common.lua
-- ARGV  [1] owner: unique to one acquisition
--       [2] mode: 'shared' or 'exclusive'
--       [3] lease: ms
--       [4] floor: the highest token the caller's resource has seen, or '' if it cannot say
-- Answer  {'granted', token, ms the lease has left}
--         {'waiting', '0', ms after which to ask again at the latest}
--         {'released', '0', 0}: this owner released or gave up before, the call is an echo
--
-- O(log holders) and what purge and wake cost.

local owner, mode, lease, floor = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

-- The latest deadline in a set, or nil.
local function latest(deadlines)
  return tonumber(redis.call('ZRANGE', deadlines, 0, 0, 'REV', 'WITHSCORES')[2])
end

-- Until when whoever waits ahead of the ticket keeps its place, or nil if nobody does.
local function ahead(queue, ticket)
  local first = redis.call('ZRANGEBYSCORE', queue, '-inf', ticket and '(' .. ticket or '+inf', 'LIMIT', 0, 1)
  return first[1] and tonumber(redis.call('ZSCORE', WAITING, first[1]))
end

-- When what stands in the way lapses at the latest, or nil if nothing does.
local function blocked_until(state, ticket)
  local writer = latest(HELD.exclusive)
  local quarantined = now < state.quarantine and state.quarantine
  if mode == 'shared' then
    return writer or not quarantined and ahead(QUEUE.exclusive, ticket) or nil
  end
  return writer or quarantined or latest(HELD.shared) or ahead(QUEUE.exclusive, ticket) or ahead(QUEUE.shared, ticket)
end

-- Readers that hold together share the token of their phase, so a resource needs to remember one number only: the
-- highest it has seen. It is the time in microseconds, so that it grows even when the last one is lost; the last one,
-- and what the resource has seen, are there for when the clock was set back.
local function issue_token(state)
  local seen = math.max(state.token, floor or 0)
  if mode == 'exclusive' or state.phase ~= 'shared' or state.token < seen then
    state.token = math.max(seen + 1, now_us)
    redis.call('HSET', STATE, 'token', digits(state.token), 'phase', mode)
  end
  return digits(state.token)
end

if redis.call('ZSCORE', RELEASED, owner) then
  return { 'released', '0', 0 }
end
local state = settle(lease, floor)
local left = extend(HELD[mode], owner, lease)
if left > 0 then
  return { 'granted', digits(state.token), left }
end

local ticket = redis.call('ZSCORE', QUEUE[mode], owner)
local until_ms = blocked_until(state, ticket)
if not until_ms then
  if ticket then
    leave_queue(owner)
  end
  redis.call('ZADD', HELD[mode], now + lease, owner)
  redis.call('HSET', SINCE, owner, now)
else
  if not ticket then
    redis.call('ZADD', QUEUE[mode], redis.call('HINCRBY', STATE, 'ticket', 1), owner)
    redis.call('HSET', SINCE, owner, now)
  end
  -- Asks again within a third of a lease; two thirds let it miss one.
  redis.call('ZADD', WAITING, now + math.ceil(lease * 2 / 3), owner)
end
if state.has_changed then
  wake(state)
end
if until_ms then
  return { 'waiting', '0', math.max(1, math.min(until_ms - now, math.floor(lease / 3))) }
end
return { 'granted', issue_token(state), lease }
