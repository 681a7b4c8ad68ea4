-- ARGV: id, node, is_shown (1: the caller has just shown what its disk has of the container), then known, fresh,
--       quiet_ms: see look_at_epoch
-- Answers {'absent'} | {'elsewhere', node} | {'marked', id…}, every child before its parent, the container itself last
--         | {'unknown'}: Redis lost data, and the container may be on a node that has yet to say
local id, node, is_shown = unpack(ARGV, 1, 3)

if not look_at_epoch(ARGV[4], ARGV[5], tonumber(ARGV[6])).is_settled and is_shown ~= '1' then
  return {'unknown'}
end
local owner = node_of(id)
if owner and owner ~= node then
  return {'elsewhere', owner}
end
if not get(id, 'state') then
  return {'absent'}
end
local answer = {'marked'}
local below = descendants(id, -1)
for position = #below, 1, -1 do
  answer[#answer + 1] = below[position]
end
answer[#answer + 1] = id
for position = 2, #answer do
  if get(answer[position], 'state') ~= 'destroying' then
    calm(answer[position])
    set_state(answer[position], 'destroying')
  end
end
return answer
