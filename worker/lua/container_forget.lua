-- ARGV: id, generation, state, changed_ms (as they were seen)
-- Answers 1 when the container is gone or only holds others any more, not necessarily by this call; 0 when it changed
-- since it was seen, or was a holder or destroying and has descendants: then nothing is changed.
local id, generation, seen_state, changed_ms = unpack(ARGV)

local state = get(id, 'state')
if not state or (state == 'holder' and seen_state ~= 'holder') then
  return 1
end
if get(id, 'generation') ~= generation or state ~= seen_state or get(id, 'changed_ms') ~= changed_ms then
  return 0
end
if is_childless(id) then
  remove(id)
  return 1
end
if state == 'holder' or state == 'destroying' then
  return 0
end
forget_names(id)
settle(id)
return 1
