-- ARGV: id, generation, waits_for ('' for nothing)
-- Answers 1; 0 when the container is gone or another one.
local id, generation, waits_for = unpack(ARGV)

if get(id, 'generation') ~= generation or get(id, 'state') ~= 'provisioning' then
  return 0
end
if waits_for == '' then
  redis.call('HDEL', hash_of(id), 'waits_for')
else
  redis.call('HSET', hash_of(id), 'waits_for', waits_for)
end
return 1
