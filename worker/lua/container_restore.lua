-- ARGV: id, node, generation (of the hashes this call creates), then name, image, info of each rootfs
-- Answers {'restored'} | {'destroying', id} | {'elsewhere', node}
-- A container that already shows exactly these rootfses keeps its changed_ms.
local id, node, generation = unpack(ARGV, 1, 3)

local doomed = destroying(id)
if doomed then
  return {'destroying', doomed}
end
local owner = node_of(id)
if owner and owner ~= node then
  return {'elsewhere', owner}
end
local is_changed = not get(id, 'state')
local is_wanted = {}
ensure(id, node, generation)
for position = 4, #ARGV, 3 do
  local name, image, info = unpack(ARGV, position, position + 2)
  is_wanted[name] = true
  if redis.call('HDEL', hash_of(id), 'pending:' .. name, 'request:' .. name) > 0 then
    is_changed = true
  end
  if get(id, 'image:' .. name) ~= image or redis.call('HGET', infos_of(id), name) ~= info then
    redis.call('HSET', hash_of(id), 'image:' .. name, image)
    redis.call('HSET', infos_of(id), name, info)
    is_changed = true
  end
end
for _, name in ipairs(redis.call('HKEYS', infos_of(id))) do
  if not is_wanted[name] then
    redis.call('HDEL', hash_of(id), 'image:' .. name)
    redis.call('HDEL', infos_of(id), name)
    is_changed = true
  end
end
if is_changed then
  settle(id)
end
return {'restored'}
