-- SPDX-License-Identifier: Apache-2.0
-- End the consumer itself: what it has goes back to the queues, and nothing is held against it.
--
-- KEYS  [1] Q: see queue_common.lua
-- ARGV  [1] consumer
-- Answer  messages given back; 0 if it was gone before

return is_gone(ARGV[1]) and 0 or end_consumer(ARGV[1], give_back)
