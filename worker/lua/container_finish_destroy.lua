-- ARGV: id
-- Answers 1 when the container is gone, not necessarily by this call; 0 when it is not being destroyed or has
-- descendants: then nothing is changed.
local id = ARGV[1]

local state = get(id, 'state')
if not state then
  return 1
end
if state ~= 'destroying' or not is_childless(id) then
  return 0
end
remove(id)
return 1
