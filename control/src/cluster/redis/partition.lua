-- One call of registry or mappings: what table.rs decides, on the clock of this partition.
-- KEYS: schema, nodes, seen, drained, mappings, fence, born. ARGV: lease, promise, the most mappings and the highest fence
-- that the caller was told of, then the call and what it is about.
local schema_key, nodes, seen, drained, mappings, fence, born =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local lease, promise, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local told = tonumber(table.remove(ARGV, 4))
local call = ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function text(number) return string.format('%.0f', number) end

local schema = redis.call('GET', schema_key)
if schema and schema ~= '1' then return {'schema', schema} end

-- Somebody else's key is in the place of one of ours, and what ours had is gone: this partition is born
-- anew as soon as that is put right, whoever does it.
local kinds = {[nodes] = 'hash', [seen] = 'hash', [drained] = 'set', [mappings] = 'hash', [fence] = 'string', [born] = 'string'}
for key, kind in pairs(kinds) do
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    redis.call('DEL', schema_key)
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found)
  end
end

if not schema then
  redis.call('SET', schema_key, '1')
  redis.call('SET', born, text(now))
  redis.call('SET', fence, text(now))
end

-- It never gave that out: it came back with an older copy of what it had.
if tonumber(redis.call('GET', fence) or '0') < told then
  redis.call('SET', fence, text(told))
  redis.call('SET', born, text(now))
end

-- One that is still to come is of a clock that was set back since.
local birth = tonumber(redis.call('GET', born) or '0')
local young = now >= birth and now - birth < lease

-- Which start has the name, and whether its lease holds.
local function start_of(name)
  local value = redis.call('HGET', seen, name)
  if not value then return nil, false, 0 end
  local start, at = string.match(value, '^(%S+) (%d+)$')
  local age = now - tonumber(at)
  return start, age >= 0 and age < lease, math.max(age, 0)
end

local function mapping_of(scope)
  local value = redis.call('HGET', mappings, scope)
  if not value then return nil end
  local number, held, since, start, name = string.match(value, '^(%d+) ([01]) (%d+) (%S+) (%S+)$')
  return { fence = tonumber(number), held = held, since = since, start = start, name = name }
end

-- Of before its birth, and nobody said since that it is so still.
local function is_doubtful(m) return young and tonumber(m.since) <= birth end

local function write(scope, m)
  local value = text(m.fence) .. ' ' .. m.held .. ' ' .. m.since .. ' ' .. m.start .. ' ' .. m.name
  redis.call('HSET', mappings, scope, value)
end

local function next_fence(least)
  local number = math.max(tonumber(redis.call('GET', fence) or '0'), least) + 1
  redis.call('SET', fence, text(number))
  return number
end

local function found(word, m) return {word, m.name, m.start, text(m.fence), m.held} end

if call == 'announce' then
  local name, start, record = ARGV[5], ARGV[6], ARGV[7]
  local other, lives = start_of(name)
  if other and other ~= start and lives then return {'taken'} end
  redis.call('HSET', nodes, name, record)
  redis.call('HSET', seen, name, start .. ' ' .. text(now))
  return {'ok', tostring(redis.call('SISMEMBER', drained, name))}

elseif call == 'withdraw' or call == 'bury' then
  local name, start = ARGV[5], ARGV[6]
  local known, lives = start_of(name)
  if known == start and not (call == 'bury' and lives) then
    redis.call('HDEL', nodes, name)
    redis.call('HDEL', seen, name)
  end
  return {'ok'}

elseif call == 'nodes' then
  local answer = {'ok'}
  local records = redis.call('HGETALL', nodes)
  for at = 1, #records, 2 do
    local name = records[at]
    local _, lives, age = start_of(name)
    answer[#answer + 1] = records[at + 1]
    answer[#answer + 1] = (lives and '1' or '0') .. ' ' .. redis.call('SISMEMBER', drained, name) .. ' ' .. text(age)
  end
  return answer

elseif call == 'drain' then
  redis.call(ARGV[6] == '1' and 'SADD' or 'SREM', drained, ARGV[5])
  return {'ok'}

elseif call == 'locate' then
  local scope, name, start = ARGV[5], ARGV[6], ARGV[7]
  local holds, given_up, quiet = ARGV[8] == '1', tonumber(ARGV[9]), ARGV[10] == '1'
  local m = mapping_of(scope)
  if m and is_doubtful(m) then return {'young'} end
  if m then
    local known, lives = start_of(m.name)
    local is_there = known == m.start
    -- Its own owner takes another fence whenever it likes: the scope stays where it is.
    local renewed = given_up == m.fence and name == m.name and start == m.start
    if not renewed and (quiet or (is_there and given_up ~= m.fence)) then
      if holds and name == m.name and start == m.start then m.held = '1' end
      -- Written also when nothing changed: what is told after that has reached the replica.
      if name ~= '' then write(scope, m) end
      return found((is_there and lives) and 'owned' or 'stale', m)
    end
  elseif young then
    return {'young'}
  elseif redis.call('HLEN', mappings) >= most then
    return {'full'}
  end
  if name == '' then return {'free'} end
  local known, lives = start_of(name)
  if known ~= start or not lives then return {'free'} end
  m = { fence = next_fence(0), held = holds and '1' or '0', since = text(now), start = start, name = name }
  write(scope, m)
  return found('owned', m)

elseif call == 'release' then
  local m = mapping_of(ARGV[5])
  if m and m.fence == tonumber(ARGV[6]) then redis.call('HDEL', mappings, ARGV[5]) end
  return {'ok'}

elseif call == 'forget' then
  local m = mapping_of(ARGV[5])
  if m and m.held == '0' and not is_doubtful(m) then redis.call('HDEL', mappings, ARGV[5]) end
  return {'ok'}

elseif call == 'assert' then
  local name, start = ARGV[5], ARGV[6]
  local answer = {'ok'}
  for at = 7, #ARGV, 2 do
    local scope, number = ARGV[at], tonumber(ARGV[at + 1])
    local m = mapping_of(scope)
    local kept = 0
    if m and m.name == name and m.start == start then
      m.held = '1'
      -- Greater where this is an older copy of what it had.
      if m.fence < number then
        m.fence = number
        redis.call('SET', fence, text(math.max(tonumber(redis.call('GET', fence) or '0'), number)))
      end
      if tonumber(m.since) <= birth then m.since = text(now) end
      write(scope, m)
      kept = m.fence
    elseif not m or m.fence < number then
      kept = next_fence(number)
      write(scope, { fence = kept, held = '1', since = text(now), start = start, name = name })
    end
    answer[#answer + 1] = text(kept)
  end
  return answer

elseif call == 'sweep' then
  local page = redis.call('HSCAN', mappings, ARGV[5], 'COUNT', ARGV[6])
  local count = 0
  for at = 1, #page[2], 2 do
    local m = mapping_of(page[2][at])
    if m and not is_doubtful(m) then
      local known = start_of(m.name)
      if known ~= m.start or (m.held == '0' and now - tonumber(m.since) >= promise) then
        redis.call('HDEL', mappings, page[2][at])
        count = count + 1
      end
    end
  end
  return {'ok', page[1], text(count)}
end
return redis.error_reply('ERR unknown call ' .. call)
