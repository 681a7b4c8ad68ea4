-- ARGV: id, generation, token (of this failure), error, delay_ms ('' when no retry follows)
-- Answers the failures since the last success; 0 when the container is gone, another one or done.
local id, generation, token, reason, delay_ms = unpack(ARGV)

local state = get(id, 'state')
if get(id, 'generation') ~= generation or (state ~= 'provisioning' and state ~= 'destroying') then
  return 0
end
if get(id, 'failure') ~= token then
  redis.call('HINCRBY', hash_of(id), 'attempts', 1)
  redis.call('HSET', hash_of(id), 'failure', token, 'last_error', reason)
  redis.call('HDEL', hash_of(id), 'retry_at_ms', 'waits_for')
  if delay_ms ~= '' then
    redis.call('HSET', hash_of(id), 'retry_at_ms', string.format('%.0f', NOW_MS + delay_ms))
  end
end
return tonumber(get(id, 'attempts'))
