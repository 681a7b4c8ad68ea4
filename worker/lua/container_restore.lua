-- ARGV: id, node, generation on the disk ('' when the disk has no rootfs), generation (of the hashes this call creates),
--       then name, image, info of each rootfs
-- Answers {'restored'} | {'destroying', id} | {'elsewhere', node, 1 when that node may still forget it else 0}
-- A container that already shows exactly these rootfses keeps its changed_ms.
--
-- The disk decides which container this is. Another generation, or a mark on an ancestor that does not cover this
-- container, comes from an older copy of Redis: a destroy marks all that is nested, and what is marked never lives again.
-- So may what was shown before the epoch of a node that does not live, once it had the time to show itself.
local id, node, generation, fresh = unpack(ARGV, 1, 4)

local doomed = destroying(id)
local is_other = generation ~= '' and get(id, 'generation') ~= generation
local is_marked = get(id, 'state') == 'destroying' and not is_other
if doomed and (is_marked or generation == '') then
  return {'destroying', doomed}
end
local owner = node_of(id)
if owner and owner ~= node then
  local shown = get(id, 'node') and id or id:match('^[^.]+')
  local is_of_now = tonumber(get(shown, 'changed_ms')) >= epoch_began_ms()
  if generation == '' or is_live(owner) or is_of_now then
    return {'elsewhere', owner, is_recovering(owner) and 1 or 0}
  end
  if NOW_MS < quiet_until_ms() then
    return {'elsewhere', owner, 1}
  end
  remove_tree(id:match('^[^.]+'))
end
local is_changed = not get(id, 'state')
for _, ancestor in ipairs(ancestors(id)) do
  if get(ancestor, 'state') == 'destroying' then
    settle(ancestor)
  end
end
if is_other and get(id, 'state') then
  forget_names(id)
  calm(id)
  redis.call('HSET', hash_of(id), 'generation', generation)
  is_changed = true
end
local is_wanted = {}
ensure(id, node, generation ~= '' and generation or fresh)
for position = 5, #ARGV, 3 do
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
