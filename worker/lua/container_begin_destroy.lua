-- ARGV: id, node, generation ('' for any; else only a container of this one that is marked already), is_shown (1: the caller
--       has just shown what its disk has of the container), then known, fresh, quiet_ms: see look_at_epoch
-- Answers {'absent', mark of the epoch} | {'elsewhere', node} | {'marked', mark of the epoch, id…}, every child before its
--         parent, the container itself last | {'unknown'}: Redis lost data, and the container may be on a node that has
--         yet to say
local id, node, generation, is_shown = unpack(ARGV, 1, 4)

local epoch = look_at_epoch(ARGV[5], ARGV[6], tonumber(ARGV[7]))
if not epoch.is_settled and is_shown ~= '1' then
  return {'unknown'}
end
local owner = node_of(id)
if owner and owner ~= node then
  return {'elsewhere', owner}
end
local is_other = generation ~= '' and (get(id, 'generation') ~= generation or get(id, 'state') ~= 'destroying')
if not get(id, 'state') or is_other then
  return {'absent', epoch.mark}
end
local answer = {'marked', epoch.mark}
local below = descendants(id, -1)
for position = #below, 1, -1 do
  answer[#answer + 1] = below[position]
end
answer[#answer + 1] = id
for position = 3, #answer do
  if get(answer[position], 'state') ~= 'destroying' then
    calm(answer[position])
    set_state(answer[position], 'destroying')
  end
end
return answer
