-- ARGV: id, name, image, generation
-- Answers 1 when the pending name was forgotten, 0 when there was nothing to forget.
local id, name, image, generation = unpack(ARGV)

if get(id, 'generation') ~= generation or get(id, 'pending:' .. name) ~= image or get(id, 'state') == 'destroying' then
  return 0
end
redis.call('HDEL', hash_of(id), 'pending:' .. name, 'request:' .. name, 'retry_at_ms', 'waits_for')
settle(id)
return 1
