-- SPDX-License-Identifier: Apache-2.0
-- KEYS[1]  P, the key prefix. Time is the server's.
local P = KEYS[1]
local time = redis.call('TIME')
local NOW_MS = time[1] * 1000 + math.floor(time[2] / 1000)
