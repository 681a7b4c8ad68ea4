-- SPDX-License-Identifier: Apache-2.0
-- Whether what Redis does not show can be taken for absent. Follows container_tree.lua or clock.lua, which set P and
-- NOW_MS; precedes the transition.
--
-- Keys:
--   P:epoch            HASH  id           drawn when Redis was found empty
--                            run          run of the server that last looked; another one may have an older copy
--                            began_ms     when it was found empty, or the other run was
--                            quiet_until  ms; 0 once all nodes that live have shown their containers since
--   P:epoch:peers      SET   nodes that those knew that were there before the loss; while it is quiet
--   P:nodes:expiry, P:nodes:recovery: see node_heartbeat.lua
--
-- A node keeps the id on its disk, and the names of all nodes. So an id that is missing, or another than the node's, says that Redis lost its data.

local EPOCH = P .. ':epoch'
local PEERS = P .. ':epoch:peers'

-- When Redis was found to have lost data; 0 if never.
local function epoch_began_ms()
  return tonumber(redis.call('HGET', EPOCH, 'began_ms') or 0)
end

local function quiet_until_ms()
  return tonumber(redis.call('HGET', EPOCH, 'quiet_until') or 0)
end

local function is_live(node)
  return NOW_MS < tonumber(redis.call('ZSCORE', P .. ':nodes:expiry', node) or 0)
end

local function is_recovered(node)
  local mark = redis.call('HGET', P .. ':nodes:recovery', node)
  return mark and mark:sub(1, 10) == 'recovered:'
end

-- Whether a node lives but has not shown its containers since Redis may have lost some.
local function is_recovering(node)
  return is_live(node) and not is_recovered(node)
end

-- Whether all nodes that were there before the loss, as far as those know that came since, have shown their containers.
local function are_all_back()
  local peers = redis.call('SMEMBERS', PEERS)
  for _, node in ipairs(peers) do
    if not is_recovered(node) then
      return false
    end
  end
  return #peers > 0
end

local function recovering()
  local live = redis.call('ZRANGEBYSCORE', P .. ':nodes:expiry', '(' .. string.format('%.0f', NOW_MS), '+inf')
  local found = {}
  for _, node in ipairs(live) do
    if is_recovering(node) then
      found[#found + 1] = node
    end
  end
  return found
end

-- Look at the epoch, beginning a new one if need be.
--   known     the id on the caller's disk; '' if it never was part of the cluster
--   fresh     the id of an epoch that begins with this call
--   quiet_ms  how long nodes may take to show themselves
-- Returns { mark = id and run, id, began_ms, is_settled, wait_ms, waits_for = nodes }.
local function look_at_epoch(known, fresh, quiet_ms)
  local row = redis.call('HMGET', EPOCH, 'id', 'run', 'quiet_until', 'began_ms')
  local run = redis.call('INFO', 'server'):match('run_id:(%x+)')
  local id, quiet_until = row[1] or fresh, tonumber(row[3] or 0)
  local is_older = row[1] and row[2] ~= run
  if is_older then
    redis.call('DEL', P .. ':nodes:recovery', PEERS)
  end
  if is_older or (known ~= '' and known ~= id) then
    quiet_until = NOW_MS + quiet_ms
  end
  local waits_for = {}
  if quiet_until > 0 then
    -- Never further away than that: the clock may have been set back.
    quiet_until = math.min(quiet_until, NOW_MS + quiet_ms)
    waits_for = recovering()
    if #waits_for == 0 and (quiet_until <= NOW_MS or are_all_back()) then
      quiet_until = 0
      redis.call('DEL', PEERS)
    end
  end
  local began_ms = (not row[1] or is_older) and NOW_MS or tonumber(row[4])
  if began_ms ~= tonumber(row[4]) or quiet_until ~= tonumber(row[3]) then
    redis.call('HSET', EPOCH, 'id', id, 'run', run, 'began_ms', string.format('%.0f', began_ms),
      'quiet_until', string.format('%.0f', quiet_until))
  end
  return {
    mark = id .. ':' .. run, id = id, began_ms = began_ms, is_settled = quiet_until == 0,
    wait_ms = math.max(0, quiet_until - NOW_MS), waits_for = waits_for,
  }
end
