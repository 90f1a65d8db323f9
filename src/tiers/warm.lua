-- Writes one batch of a changelog's partition, or nothing of it: see state/src/tier.rs, `Batch`.
-- KEYS: 1 the progress; from 2 on one profile each
-- ARGV: 1 topic:partition  2 generation  3 from  4 to  5 first (0, 1)  6 partition  7 time to live in ms, 0 for none
--       8 ms that a tombstone is kept; then for each profile: offset, time, tombstone (0, 1), value, json
-- Answers 1 where it was written, 0 where it was refused.
local generation, from, to = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local next = to
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local fits = ARGV[5] == '1'
if stored then
  local of, at = stored:match('^(%d+):(%d+)$')
  of, at = tonumber(of), tonumber(at)
  if of > generation then return 0 end
  if of == generation then
    if at >= from then fits = true end
    if at > next then next = at end
  end
end
if not fits then return 0 end

local ttl, tombstones = tonumber(ARGV[7]), tonumber(ARGV[8])
for i = 2, #KEYS do
  local key, arg = KEYS[i], 9 + (i - 2) * 5
  local kept = redis.call('HMGET', key, 'g', 'o')
  local of, at = tonumber(kept[1]), tonumber(kept[2])
  local offset = tonumber(ARGV[arg])
  if not of or of < generation or (of == generation and at < offset) then
    if ARGV[arg + 2] == '1' then
      redis.call('DEL', key)
      redis.call('HSET', key, 'g', ARGV[2], 'o', ARGV[arg], 'p', ARGV[6], 't', ARGV[arg + 1])
      redis.call('PEXPIRE', key, tombstones)
    else
      redis.call('HSET', key, 'g', ARGV[2], 'o', ARGV[arg], 'p', ARGV[6], 't', ARGV[arg + 1],
        'v', ARGV[arg + 3], 'j', ARGV[arg + 4])
      if ttl > 0 then redis.call('PEXPIRE', key, ttl) else redis.call('PERSIST', key) end
    end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. string.format('%.0f', next))
return 1
