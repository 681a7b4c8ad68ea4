-- SPDX-License-Identifier: Apache-2.0
-- Show a node as alive.
--
-- KEYS[1]  P, the key prefix
-- ARGV     name, view (JSON), ttl_ms
-- Answers 1 when the node is marked as recovered, 0 when it never was or Redis lost the mark.
--
-- Keys:
--   P:nodes            HASH  name -> view (JSON)
--   P:nodes:seen       ZSET  name by the time of the last heartbeat, in ms
--   P:nodes:expiry     ZSET  name by the time from which it counts as gone, in ms
--   P:nodes:recovery   HASH  name -> "recovering:<token>", or "recovered:<token>": the mark
--
-- Same effect and answer when sent twice, because it never sets the mark. Time is the server's.
local P = KEYS[1]
local name, view, ttl_ms = unpack(ARGV)

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', P .. ':nodes', name, view)
redis.call('ZADD', P .. ':nodes:seen', string.format('%.0f', now_ms), name)
redis.call('ZADD', P .. ':nodes:expiry', string.format('%.0f', now_ms + ttl_ms), name)
local recovery = redis.call('HGET', P .. ':nodes:recovery', name)
return recovery and recovery:find('recovered:', 1, true) == 1 and 1 or 0
