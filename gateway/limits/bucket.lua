-- All limit operations of one event-loop tick in one call. Mirrors gateway/limits/bucket.py; packed by
-- gateway/store/program.py, which has the layout of the sections.
-- KEYS: the buckets in the order of the operations. ARGV[1]: the program, sections one after the other, each a head
-- (operation, count n, width k) and its numbers, little-endian. A request asks for k limits in one row; it is admitted
-- by all of them or takes from none; those in shadow are counted and never refuse.
-- Returns one string: for each ask the level after it, for each lease what it granted and the level (doubles), then
-- for each ask 1 or 0: would this limit alone admit it.
-- Time is the server's, in microseconds, so that all workers share one clock. A clock that went backwards adds nothing
-- and the bucket goes on from there.
local unpacks = struct.unpack
local program = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local level, rates, bursts, dirty = {}, {}, {}, {}
local out, flags = {}, {}
local outs, asks, key, at = 0, 0, 0, 1
local size = #program

local function load(name, rate, burst)
  local saved = redis.call('GET', name)
  local have = burst
  if saved then
    local tokens, stamp = unpacks('<dd', saved)
    have = tokens
    if now > stamp then
      have = tokens + (now - stamp) * rate / 1000000
      if have > burst then have = burst end
    else
      if have > burst then have = burst end
      if now < stamp then dirty[name] = true end
    end
  end
  level[name], rates[name], bursts[name] = have, rate, burst
  return have
end

local function used(name)
  redis.call('ZREMRANGEBYSCORE', name, '-inf', now)
  local count = redis.call('ZCARD', name)
  level[name] = count
  return count
end

while at <= size do
  local op, n, k
  op, n, k, at = unpacks('<BHB', program, at)
  if op == 1 then -- take: what varies, k limits, then what varies of each row: costs (1), members and lifetimes (2)
    local varies
    varies, at = unpacks('<B', program, at)
    local kind, rate, burst, cost = {}, {}, {}, {}
    for j = 1, k do
      kind[j], rate[j], burst[j], cost[j], at = unpacks('<Bddd', program, at)
    end
    if k == 1 and varies == 0 and kind[1] == 0 then -- the usual case
      local r, b, c = rate[1], burst[1], cost[1]
      for i = key + 1, key + n do
        local name = KEYS[i]
        local have = level[name]
        if have == nil then have = load(name, r, b) end
        asks, outs = asks + 1, outs + 1
        if have >= c then
          have = have - c
          level[name] = have
          dirty[name] = true
          flags[asks] = '1'
        else
          flags[asks] = '0'
        end
        out[outs] = have
      end
      key = key + n
    else
      local costs, members = varies % 2 == 1, varies >= 2
      for _ = 1, n do
        local admitted, member, life = true, nil, nil
        if costs then
          for j = 1, k do cost[j], at = unpacks('<d', program, at) end
        end
        if members then
          member = string.sub(program, at, at + 15)
          life, at = unpacks('<d', program, at + 16)
        end
        for j = 1, k do
          local name = KEYS[key + j]
          local have, fits = level[name], nil
          if kind[j] >= 2 then
            have = have or used(name)
            fits = have + 1 <= burst[j]
          else
            have = have or load(name, rate[j], burst[j])
            fits = have >= cost[j]
          end
          flags[asks + j] = fits and '1' or '0'
          if not fits and kind[j] % 2 == 0 then admitted = false end
        end
        for j = 1, k do
          local name = KEYS[key + j]
          if admitted and flags[asks + j] == '1' then
            if kind[j] >= 2 then
              redis.call('ZADD', name, now + life, member)
              redis.call('PEXPIRE', name, 60000)
              level[name] = level[name] + 1
            else
              level[name] = level[name] - cost[j]
              dirty[name] = true
            end
          end
          if kind[j] >= 2 then out[outs + j] = burst[j] - level[name] else out[outs + j] = level[name] end
        end
        key, asks, outs = key + k, asks + k, outs + k
      end
    end
  elseif op == 2 then -- adjust: what was taken too much comes back, what was taken too little is charged
    for i = key + 1, key + n do
      local name, r, b, delta = KEYS[i], nil, nil, nil
      r, b, delta, at = unpacks('<ddd', program, at)
      local have = (level[name] or load(name, r, b)) + delta
      if have > b then have = b end
      level[name] = have
      dirty[name] = true
    end
    key = key + n
  elseif op == 3 then -- release a place
    for i = key + 1, key + n do
      redis.call('ZREM', KEYS[i], string.sub(program, at, at + 15))
      at = at + 16
    end
    key = key + n
  elseif op == 4 then -- renew a place
    for i = key + 1, key + n do
      local member, life = string.sub(program, at, at + 15), nil
      life, at = unpacks('<d', program, at + 16)
      redis.call('ZADD', KEYS[i], now + life, member)
      redis.call('PEXPIRE', KEYS[i], 60000)
    end
    key = key + n
  elseif op == 5 then -- lease: as many whole tokens as there are, up to what is wanted
    for i = key + 1, key + n do
      local name, r, b, want = KEYS[i], nil, nil, nil
      r, b, want, at = unpacks('<ddd', program, at)
      local have = level[name] or load(name, r, b)
      local granted = math.floor(math.max(0, math.min(want, have)))
      if granted > 0 then
        level[name] = have - granted
        dirty[name] = true
      end
      out[outs + 1], out[outs + 2] = granted, level[name]
      outs = outs + 2
    end
    key = key + n
  elseif op == 7 then -- forget all places of a worker: those that it knows to hold it renews after that
    for i = key + 1, key + n do
      local whose = string.sub(program, at, at + 7)
      at = at + 8
      for _, member in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
        if string.sub(member, 1, 8) == whose then redis.call('ZREM', KEYS[i], member) end
      end
    end
    key = key + n
  else -- 6, hint: the most that a worker knows to be there, for a bucket that the store has lost
    for i = key + 1, key + n do
      local name, r, b, hint = KEYS[i], nil, nil, nil
      r, b, hint, at = unpacks('<ddd', program, at)
      if hint < (level[name] or load(name, r, b)) then
        level[name] = hint
        dirty[name] = true
      end
    end
    key = key + n
  end
end

for name, _ in pairs(dirty) do
  local have = level[name]
  -- Forgotten once it would be full anyway.
  local ttl = math.ceil((bursts[name] - have) / rates[name] * 1000) + 1000
  redis.call('SET', name, struct.pack('<dd', have, now), 'PX', ttl)
end
if outs == 0 then return '' end
return struct.pack('<' .. string.rep('d', outs), unpack(out, 1, outs)) .. table.concat(flags)
