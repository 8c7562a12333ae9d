// Lua that Redis runs, each as one step that no other client sees half of, and that is never left half done.

/** What RedisStore's index is called, after its prefix: the names of chunks are made from it. */
export const indexName = 'index';

/**
 * KEYS[1] is the hash `<prefix>index`: `<name of this writing>/<count>` of each key. `<prefix>` may have more in front of it
 * than the store knows (keyPrefix of ioredis). ARGV[1] is a key.
 */
const beginning = `
local index, key = KEYS[1], ARGV[1]
local function chunks(key, entry)
  local names = {}
  local id, count = string.match(entry or '', '^(%x+)/(%d+)$')
  for i = 1, tonumber(count or 0) do
    names[i] = string.sub(index, 1, -${indexName.length + 1}) .. key .. ':' .. id .. ':' .. (i - 1)
  end
  return names
end
local function isWhole(names)
  for _, name in ipairs(names) do
    if redis.call('EXISTS', name) == 0 then return false end
  end
  return #names > 0
end
local function remove(names)
  for _, name in ipairs(names) do redis.call('UNLINK', name) end
end
local function keep(names, seconds)
  for _, name in ipairs(names) do
    if seconds == '' then redis.call('PERSIST', name) else redis.call('EXPIRE', name, seconds) end
  end
end
`;

/**
 * (key, entry, seconds to live or '', cursor): the index names this writing, if all its chunks are there, and what it named
 * before is gone. With it some other entries are looked at, from `cursor` on, and go when a chunk of theirs has gone.
 * -> whether it is named, next cursor
 */
export const commitScript = `${beginning}
local names = chunks(key, ARGV[2])
if not isWhole(names) then return {0, ARGV[4]} end
local before = redis.call('HGET', index, key)
redis.call('HSET', index, key, ARGV[2])
keep(names, ARGV[3])
if before ~= ARGV[2] then remove(chunks(key, before)) end
local scanned = redis.call('HSCAN', index, ARGV[4], 'COUNT', 10)
for i = 1, #scanned[2], 2 do
  local known = chunks(scanned[2][i], scanned[2][i + 1])
  if not isWhole(known) then
    redis.call('HDEL', index, scanned[2][i])
    remove(known)
  end
end
return {1, scanned[1]}
`;

/** (key, entry): the chunks of a writing go, unless the index names them. -> whether it does */
export const abandonScript = `${beginning}
if redis.call('HGET', index, key) == ARGV[2] then return 1 end
remove(chunks(key, ARGV[2]))
return 0
`;

/** (key, entry): takes off what lacks a chunk, with the others, unless it was written anew. -> what the index then names */
export const dropScript = `${beginning}
local entry = redis.call('HGET', index, key)
if entry ~= ARGV[2] then return entry end
redis.call('HDEL', index, key)
remove(chunks(key, entry))
return false
`;

/** (key): off the index, with its chunks */
export const deleteScript = `${beginning}
local entry = redis.call('HGET', index, key)
redis.call('HDEL', index, key)
remove(chunks(key, entry))
`;

/** (key, entry, seconds): the time to live of its chunks begins anew */
export const renewScript = `${beginning}
keep(chunks(key, ARGV[2]), ARGV[3])
`;
