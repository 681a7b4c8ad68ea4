-- SPDX-License-Identifier: Apache-2.0
-- Show who holds and who waits. Changes nothing.
--
-- KEYS  [1] name: see lock_common.lua
-- Answer  {token, ms of quarantine left,
--          {owner, mode, ms since it began to hold, ms its lease has left, ...},
--          {owner, mode, ms since it began to wait, ms it keeps its place, ...} in order of arrival}
--
-- O(holders + waiters).


local function append(rows, owner, mode, deadline)
  if deadline > now then
    local since = tonumber(redis.call('HGET', SINCE, owner) or now)
    for _, value in ipairs({ owner, mode, math.max(0, now - since), deadline - now }) do
      rows[#rows + 1] = value
    end
  end
end

local holders = {}
for _, mode in ipairs({ 'exclusive', 'shared' }) do
  local held = redis.call('ZRANGE', HELD[mode], 0, -1, 'WITHSCORES')
  for i = 1, #held, 2 do
    append(holders, held[i], mode, tonumber(held[i + 1]))
  end
end

local arrivals = {}
for mode, queue in pairs(QUEUE) do
  local queued = redis.call('ZRANGE', queue, 0, -1, 'WITHSCORES')
  for i = 1, #queued, 2 do
    arrivals[#arrivals + 1] = { ticket = tonumber(queued[i + 1]), owner = queued[i], mode = mode }
  end
end
table.sort(arrivals, function(a, b) return a.ticket < b.ticket end)
local waiters = {}
for _, arrival in ipairs(arrivals) do
  append(waiters, arrival.owner, arrival.mode, tonumber(redis.call('ZSCORE', WAITING, arrival.owner) or 0))
end

local state = redis.call('HMGET', STATE, 'token', 'quarantine')
return { state[1] or '0', math.max(0, tonumber(state[2] or 0) - now), holders, waiters }
