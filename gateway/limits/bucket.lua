-- All decisions of one event-loop tick in one call. Mirrors gateway/limits/bucket.py.
-- KEYS: the buckets, one per ask. ARGV: for each ask its rate (tokens/s), burst and cost (tokens),
-- and the ask's group number. A group is one request: it is admitted by all of its buckets or takes from none.
-- Returns for each ask: 1 or 0 (would this bucket alone admit it), and the tokens left, as a string.
-- Time is the server's, so that all workers share one clock.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local level, stamp, dirty = {}, {}, {}
local reply = {}
local count = #KEYS
local first = 1
while first <= count do
  local group = ARGV[first * 4]
  local last = first
  while last < count and ARGV[(last + 1) * 4] == group do last = last + 1 end
  local admitted = true
  for i = first, last do
    local key = KEYS[i]
    local rate, burst, cost = tonumber(ARGV[i * 4 - 3]), tonumber(ARGV[i * 4 - 2]), tonumber(ARGV[i * 4 - 1])
    if level[key] == nil then
      local tokens, at = burst, now
      local saved = redis.call('GET', key)
      if saved then
        local split = string.find(saved, ' ', 1, true)
        tokens, at = tonumber(string.sub(saved, 1, split - 1)), tonumber(string.sub(saved, split + 1))
      end
      level[key] = math.min(burst, tokens + math.max(0, now - at) * rate / 1000000)
      stamp[key] = math.max(now, at)
    end
    if level[key] < cost then admitted = false end
    reply[i * 2 - 1] = level[key] >= cost and 1 or 0
  end
  for i = first, last do
    local key = KEYS[i]
    if admitted then
      level[key] = level[key] - tonumber(ARGV[i * 4 - 1])
      dirty[key] = i
    end
    reply[i * 2] = string.format('%.6f', level[key])
  end
  first = last + 1
end
for key, i in pairs(dirty) do
  local rate, burst = tonumber(ARGV[i * 4 - 3]), tonumber(ARGV[i * 4 - 2])
  -- Forgotten once it would be full anyway.
  local ttl = math.ceil((burst - level[key]) / rate * 1000) + 1000
  redis.call('SET', key, string.format('%.9f %d', level[key], stamp[key]), 'PX', ttl)
end
return reply
