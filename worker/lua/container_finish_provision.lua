-- ARGV: id, name, image, generation, info
-- Answers 1 when the rootfs is shown with this info, not necessarily by this call; 0 when the state was lost.
local id, name, image, generation, info = unpack(ARGV)

if get(id, 'generation') ~= generation or get(id, 'state') == 'destroying' then
  return 0
end
if get(id, 'image:' .. name) == image then
  return redis.call('HGET', infos_of(id), name) == info and 1 or 0
end
if get(id, 'pending:' .. name) ~= image then
  return 0
end
redis.call('HDEL', hash_of(id), 'pending:' .. name, 'request:' .. name)
redis.call('HSET', hash_of(id), 'image:' .. name, image)
redis.call('HSET', infos_of(id), name, info)
calm(id)
settle(id)
return 1
