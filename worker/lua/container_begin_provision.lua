-- ARGV: id, name, image, node, request, generation (of the hashes this call creates)
-- Answers {'begun', generation} | {'provisioned', info} | {'conflict', image} | {'destroying', id} | {'elsewhere', node}
local id, name, image, node, request, generation = unpack(ARGV)

local doomed = destroying(id)
if doomed then
  return {'destroying', doomed}
end
local owner = node_of(id)
if owner and owner ~= node then
  return {'elsewhere', owner}
end
local taken = get(id, 'image:' .. name)
local pending = get(id, 'pending:' .. name)
if (taken or pending or image) ~= image then
  return {'conflict', taken or pending}
end
if taken then
  return {'provisioned', redis.call('HGET', infos_of(id), name)}
end
ensure(id, node, generation)
if pending then
  redis.call('HDEL', hash_of(id), 'retry_at_ms')
else
  redis.call('HSET', hash_of(id), 'pending:' .. name, image, 'request:' .. name, request)
  settle(id)
end
return {'begun', get(id, 'generation')}
