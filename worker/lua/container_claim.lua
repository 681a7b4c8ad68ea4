-- ARGV: id, generation, quiet_ms
-- Answers 1 when nobody has given a sign of work on the container for quiet_ms, twice as long after each claim: the caller
-- is to have the work taken up again. 0: somebody works on it, or will; or it is another one, or at rest.
-- Sent twice it answers 0: then it is claimed again when the time has passed once more.
local id, generation, quiet_ms = unpack(ARGV)

local state = get(id, 'state')
if get(id, 'generation') ~= generation or (state ~= 'provisioning' and state ~= 'destroying') then
  return 0
end
local latest = 0
for _, field in ipairs({ 'changed_ms', 'alive_ms', 'retry_at_ms', 'claimed_ms' }) do
  latest = math.max(latest, tonumber(get(id, field) or 0))
end
local claims = tonumber(get(id, 'claims') or 0)
if NOW_MS < latest + quiet_ms * 2 ^ math.min(claims, 8) then
  return 0
end
redis.call('HSET', hash_of(id), 'claimed_ms', NOW, 'claims', claims + 1)
return 1
