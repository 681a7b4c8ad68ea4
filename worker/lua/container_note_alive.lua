-- ARGV: id, generation
-- Answers 1 when the container is this very one and not being destroyed, and notes that its provision is being worked on;
-- else 0.
local id, generation = unpack(ARGV)

local state = get(id, 'state')
if get(id, 'generation') ~= generation or state == 'destroying' then
  return 0
end
if state == 'provisioning' then
  redis.call('HSET', hash_of(id), 'alive_ms', NOW)
end
return 1
