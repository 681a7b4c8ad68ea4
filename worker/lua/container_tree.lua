-- SPDX-License-Identifier: Apache-2.0
-- What all scripts on containers share; the text of each `container_*.lua` is appended to this one.
--
-- KEYS[1]  P, the key prefix. Its braces route the script to the one hash slot that holds all keys below, which are
--          built from it: which ancestors and descendants a container has is known only here.
--
-- Keys:
--   P:containers          ZSET  all containers as "<node> <id>", score 0. A node's containers are one range, and so
--                               are all descendants of a container; neither character that follows the range ("!"
--                               after the node's blank, "/" after the id's dot) can stand in a name.
--   P:containers:<state>  ZSET  id by changed_ms
--   P:container:<id>      HASH  state, node, generation, created_ms, changed_ms;
--                               pending:<name>  image being provisioned,  request:<name>  what was asked for;
--                               image:<name>    image of a rootfs that is there;
--                               attempts, last_error, failure (token of the last one counted), retry_at_ms, waits_for;
--                               alive_ms, claimed_ms, claims: see container_claim.lua
--   P:infos:<id>          HASH  name -> ProvisionInfo JSON, exactly for the names with an image field. Apart from the
--                               hash above so that a listing does not carry manifests and most hashes stay listpacks.
--
-- Invariants between scripts:
--   * every ancestor of a container has a hash, on the same node;
--   * every descendant of a destroying container is destroying;
--   * state is destroying, else provisioning if a name is pending, else provisioned if there is an image, else holder;
--   * a holder has descendants.
--
-- Every script has the same effect and answer when sent twice. Time is the server's.

local P = KEYS[1]
local TREE = P .. ':containers'
local time = redis.call('TIME')
local NOW_MS = time[1] * 1000 + math.floor(time[2] / 1000)
local NOW = string.format('%.0f', NOW_MS)

local function hash_of(id)
  return P .. ':container:' .. id
end

local function infos_of(id)
  return P .. ':infos:' .. id
end

local function index_of(state)
  return P .. ':containers:' .. state
end

-- A field of the container's hash; false when there is none.
local function get(id, field)
  return redis.call('HGET', hash_of(id), field)
end

-- All containers `id` is nested in, innermost first.
local function ancestors(id)
  local found = {}
  local parent = id:match('^(.*)%.')
  while parent do
    found[#found + 1] = parent
    parent = parent:match('^(.*)%.')
  end
  return found
end

-- Up to `limit` containers nested in `id`, every parent before its children; -1 for all.
local function descendants(id, limit)
  local node = get(id, 'node')
  if not node then
    return {}
  end
  local below = node .. ' ' .. id
  local members = redis.call('ZRANGEBYLEX', TREE, '[' .. below .. '.', '(' .. below .. '/', 'LIMIT', 0, limit)
  for position, member in ipairs(members) do
    members[position] = member:sub(#node + 2)
  end
  return members
end

local function is_childless(id)
  return #descendants(id, 1) == 0
end

-- The outermost of `id` and its ancestors that is being destroyed; false when none is.
local function destroying(id)
  local doomed = get(id, 'state') == 'destroying' and id
  for _, ancestor in ipairs(ancestors(id)) do
    if get(ancestor, 'state') == 'destroying' then
      doomed = ancestor
    end
  end
  return doomed
end

-- The node of the container, else of its root ancestor; false when neither is known.
local function node_of(id)
  return get(id, 'node') or get(id:match('^[^.]+'), 'node')
end

-- Every call gives a later changed_ms, also within a millisecond or after the clock was set back: who has seen a
-- container can tell that it is unchanged.
local function set_state(id, state)
  local old = redis.call('HMGET', hash_of(id), 'state', 'changed_ms')
  if old[1] and old[1] ~= state then
    redis.call('ZREM', index_of(old[1]), id)
  end
  local changed_ms = string.format('%.0f', math.max(NOW_MS, (old[2] or 0) + 1))
  redis.call('HSET', hash_of(id), 'state', state, 'changed_ms', changed_ms)
  redis.call('ZADD', index_of(state), changed_ms, id)
end

local function create(id, node, generation)
  redis.call('HSET', hash_of(id), 'node', node, 'generation', generation, 'created_ms', NOW)
  redis.call('ZADD', TREE, 0, node .. ' ' .. id)
end

-- Give `id` a hash, still without state, and its ancestors one as holders, where they have none.
local function ensure(id, node, generation)
  for _, ancestor in ipairs(ancestors(id)) do
    if not get(ancestor, 'state') then
      create(ancestor, node, generation)
      set_state(ancestor, 'holder')
    end
  end
  if not get(id, 'state') then
    create(id, node, generation)
  end
end

-- Delete a childless container, and then the holders that held nothing else.
local function remove(id)
  local row = redis.call('HMGET', hash_of(id), 'state', 'node')
  if row[1] then
    redis.call('ZREM', index_of(row[1]), id)
  end
  if row[2] then
    redis.call('ZREM', TREE, row[2] .. ' ' .. id)
  end
  redis.call('DEL', hash_of(id), infos_of(id))
  local parent = id:match('^(.*)%.')
  if parent and get(parent, 'state') == 'holder' and is_childless(parent) then
    return remove(parent)
  end
end

-- Delete a container and all that is nested in it.
local function remove_tree(id)
  local below = descendants(id, -1)
  for position = #below, 1, -1 do
    remove(below[position])
  end
  remove(id)
end

-- Forget all rootfses, there or pending; the state is the caller's to settle.
local function forget_names(id)
  for _, field in ipairs(redis.call('HKEYS', hash_of(id))) do
    if field:find(':', 1, true) then
      redis.call('HDEL', hash_of(id), field)
    end
  end
  redis.call('DEL', infos_of(id))
end

-- Forget failures, signs of work, and what the container waits for.
local function calm(id)
  redis.call('HDEL', hash_of(id), 'attempts', 'last_error', 'failure', 'retry_at_ms', 'waits_for', 'alive_ms',
    'claimed_ms', 'claims')
end

-- After a change of names: let the state follow from what the hash holds; an empty childless container goes.
local function settle(id)
  local has = {}
  for _, field in ipairs(redis.call('HKEYS', hash_of(id))) do
    has[field:match('^%a+:') or ''] = true
  end
  if has['pending:'] then
    set_state(id, 'provisioning')
  elseif has['image:'] then
    set_state(id, 'provisioned')
  elseif is_childless(id) then
    remove(id)
  else
    calm(id)
    set_state(id, 'holder')
  end
end

