-- SPDX-License-Identifier: Apache-2.0
-- Mark a node as recovered if nothing came between since its recovery began.
--
-- KEYS[1]  P, the key prefix
-- ARGV     name, token
-- Answers 1 when the mark of this recovery is set, not necessarily by this call; 0 when Redis lost what the recovery
-- wrote, or a later recovery began.
--
-- Keys:
--   P:nodes:recovery  HASH  name -> "recovering:<token>", or "recovered:<token>": the mark
local key = KEYS[1] .. ':nodes:recovery'
local name, token = unpack(ARGV)

local recovery = redis.call('HGET', key, name)
if recovery == 'recovering:' .. token then
  redis.call('HSET', key, name, 'recovered:' .. token)
end
return (recovery == 'recovering:' .. token or recovery == 'recovered:' .. token) and 1 or 0
