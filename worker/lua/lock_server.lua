#!lua flags=allow-oom
-- SPDX-License-Identifier: Apache-2.0
-- What the lock asks of the server: the time, and which run of it this is. Every lock script begins with this file;
-- tests put another one in its place. The first line lets the lock work, above all release, when memory is full.

-- Microseconds since 1970 by the server's clock. It may step, in either direction.
local function server_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Another value after every restart and every failover. About 2 microseconds.
local function server_run()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end
