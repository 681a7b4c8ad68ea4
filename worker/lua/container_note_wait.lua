-- ARGV: id, generation ('' for whichever is being destroyed), waits_for ('' for nothing)
-- Answers 1; 0 when the container is gone, another one, or at rest.
local id, generation, waits_for = unpack(ARGV)

local state = get(id, 'state')
local is_destroyed = state == 'destroying' and generation == ''
local is_provisioned = state == 'provisioning' and get(id, 'generation') == generation
if not is_destroyed and not is_provisioned then
  return 0
end
if waits_for == '' then
  redis.call('HDEL', hash_of(id), 'waits_for')
else
  redis.call('HSET', hash_of(id), 'waits_for', waits_for)
end
return 1
