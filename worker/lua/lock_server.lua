-- SPDX-License-Identifier: Apache-2.0
-- What lock and queue ask of the server: the time, and which run of it this is. Their scripts begin with this file;
-- tests put another one in its place. Before it stands allow_oom.lua, one line that has to be the first, in the scripts
-- that are to work when memory is full: all of the lock, above all release, and what settles a message of the queue.

-- Microseconds since 1970 by the server's clock. It may step, in either direction.
local function server_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Another value after every restart and every failover. About 2 microseconds.
local function server_run()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end
