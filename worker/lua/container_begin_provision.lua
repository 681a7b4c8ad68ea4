-- ARGV: id, name, image, node, request, generation (of the hashes this call creates), only ('' for any container; else only
--       one of this generation in which the name is pending already), is_shown (1: the caller has just shown what its
--       disk has of the container), then known, fresh, quiet_ms: see look_at_epoch
-- Answers {'begun', generation, mark of the epoch} | {'provisioned', info} | {'conflict', image} | {'destroying', id}
--         | {'elsewhere', node} | {'unknown'}: Redis lost data, and the container may be on a node that has yet to say
local id, name, image, node, request, generation, only, is_shown = unpack(ARGV, 1, 8)

local epoch = look_at_epoch(ARGV[9], ARGV[10], tonumber(ARGV[11]))
if not epoch.is_settled and is_shown ~= '1' then
  return {'unknown'}
end
if only ~= '' and (get(id, 'generation') ~= only or get(id, 'pending:' .. name) ~= image) then
  return {'destroying', id}
end
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
return {'begun', get(id, 'generation'), epoch.mark}
