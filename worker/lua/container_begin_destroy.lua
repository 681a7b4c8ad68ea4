-- ARGV: id, node
-- Answers {'absent'} | {'elsewhere', node} | {'marked', id…}, every child before its parent, the container itself last.
local id, node = unpack(ARGV)

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
