-- name: the sealed name of one user, as stored. Writes nothing.
--
-- KEYS  1 names     hash    user index -> sealed user name
-- ARGV  1 user      user index
--
-- Answers
--   name, sealed user name or ''

return { 'name', redis.call('HGET', KEYS[1], ARGV[1]) or '' }
