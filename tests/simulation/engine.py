"""The production Lua texts, run in one Lua 5.1 as Redis runs them: KEYS, ARGV, redis.call and cjson.

Each text is compiled once per process. It must never change what a script says: the texts come from ``farmlease``.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from lupa import lua51

from tests.simulation.memory import Status

__all__ = ["Engine", "engine"]

Call = Callable[..., Any]

#: cjson in Lua, as Redis has it: numbers with 14 digits, empty tables as objects, a slash escaped.
_HOST = r"""
redis = {}
cjson = {}

local ESCAPES = { ['"'] = '\\"', ['\\'] = '\\\\', ['/'] = '\\/', ['\b'] = '\\b', ['\f'] = '\\f', ['\n'] = '\\n',
  ['\r'] = '\\r', ['\t'] = '\\t', ['\127'] = '\\u007f' }
local function escape(sign) return ESCAPES[sign] or string.format('\\u%04x', string.byte(sign)) end
local function quoted(text) return '"' .. string.gsub(text, '[%c"\\/\127]', escape) .. '"' end

local encode
local function encode_table(value, out)
  local length, listed = 0, true
  for key in pairs(value) do
    if type(key) == 'number' and key > 0 and math.floor(key) == key then
      if key > length then length = key end
    else
      listed = false
      break
    end
  end
  if listed and length > 0 then
    out[#out + 1] = '['
    for i = 1, length do
      if i > 1 then out[#out + 1] = ',' end
      encode(value[i], out)
    end
    out[#out + 1] = ']'
    return
  end
  out[#out + 1] = '{'
  local first = true
  for key, each in pairs(value) do
    if not first then out[#out + 1] = ',' end
    first = false
    out[#out + 1] = quoted(type(key) == 'number' and string.format('%.14g', key) or key)
    out[#out + 1] = ':'
    encode(each, out)
  end
  out[#out + 1] = '}'
end

encode = function(value, out)
  local kind = type(value)
  if kind == 'string' then out[#out + 1] = quoted(value)
  elseif kind == 'number' then
    if value ~= value or value == math.huge or value == -math.huge then
      error('Cannot serialise number: must not be NaN or Inf')
    end
    out[#out + 1] = string.format('%.14g', value)
  elseif kind == 'boolean' then out[#out + 1] = tostring(value)
  elseif kind == 'nil' or value == cjson.null then out[#out + 1] = 'null'
  elseif kind == 'table' then encode_table(value, out)
  else error('Cannot serialise ' .. kind .. ': type not supported') end
end

cjson.null = setmetatable({}, { __tostring = function() return 'null' end })
function cjson.encode(value)
  local out = {}
  encode(value, out)
  return table.concat(out)
end

local PLAIN = { b = '\b', f = '\f', n = '\n', r = '\r', t = '\t' }
local function read_string(text, at)
  local stop = string.find(text, '["\\]', at)
  if string.sub(text, stop, stop) == '"' then return string.sub(text, at, stop - 1), stop + 1 end
  local parts = {}
  while true do
    stop = string.find(text, '["\\]', at)
    if not stop then error('Expected object key string but found invalid token') end
    parts[#parts + 1] = string.sub(text, at, stop - 1)
    if string.sub(text, stop, stop) == '"' then return table.concat(parts), stop + 1 end
    local sign = string.sub(text, stop + 1, stop + 1)
    if sign == 'u' then
      parts[#parts + 1] = string.char(tonumber(string.sub(text, stop + 2, stop + 5), 16))
      at = stop + 6
    else
      parts[#parts + 1] = PLAIN[sign] or sign
      at = stop + 2
    end
  end
end

local read
local function skip(text, at) return string.find(text, '[^ \t\r\n]', at) end

local function read_object(text, at)
  local found = {}
  at = skip(text, at)
  if string.sub(text, at, at) == '}' then return found, at + 1 end
  while true do
    at = skip(text, at)
    local key
    key, at = read_string(text, at + 1)
    at = skip(text, at)
    found[key], at = read(text, at + 1)
    at = skip(text, at)
    if string.sub(text, at, at) == '}' then return found, at + 1 end
    at = at + 1
  end
end

local function read_list(text, at)
  local found, length = {}, 0
  at = skip(text, at)
  if string.sub(text, at, at) == ']' then return found, at + 1 end
  while true do
    length = length + 1
    found[length], at = read(text, at)
    at = skip(text, at)
    if string.sub(text, at, at) == ']' then return found, at + 1 end
    at = at + 1
  end
end

read = function(text, at)
  at = skip(text, at)
  local sign = string.sub(text, at, at)
  if sign == '"' then return read_string(text, at + 1) end
  if sign == '{' then return read_object(text, at + 1) end
  if sign == '[' then return read_list(text, at + 1) end
  if sign == 't' then return true, at + 4 end
  if sign == 'f' then return false, at + 5 end
  if sign == 'n' then return cjson.null, at + 4 end
  local from, to = string.find(text, '^[-+.%deE]+', at)
  if not from then error('Expected value but found invalid token') end
  return tonumber(string.sub(text, from, to)), to + 1
end
function cjson.decode(text) return (read(text, 1)) end

return function(call, chunk, keys, argv)
  redis.call, KEYS, ARGV = call, keys, argv
  return chunk()
end
"""


class Engine:
    """A Lua runtime with the scripts that were given to it."""

    def __init__(self) -> None:
        self._lua = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=False, register_eval=False)
        self._run = self._lua.execute(_HOST.encode())
        self._table = self._lua.table_from
        self._digests: dict[bytes, bytes] = {}
        self._chunks: dict[bytes, Any] = {}

    def load(self, text: bytes) -> bytes:
        """Compile a script; return its digest."""
        sha = self._digests.get(text)
        if sha is None:
            sha = self._digests[text] = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
            self._chunks[sha] = self._lua.compile(text)
        return sha

    def run(
        self, sha: bytes, keys: Sequence[bytes], arguments: Sequence[bytes], call: Call, now: tuple[int, int]
    ) -> Any:
        """Run a script at a time of the server; ``call`` carries out its commands.

        Returns bytes, int, None and lists of them.
        """
        table = self._table

        def from_lua(name: bytes, *words: Any) -> Any:
            reply = call(name, words, now)
            if type(reply) is list:
                return table([False if each is None else table(each) if type(each) is list else each for each in reply])
            if type(reply) is Status:
                return table({b"ok": bytes(reply)})
            return False if reply is None else reply

        return _reply(self._run(from_lua, self._chunks[sha], table(keys), table(arguments)))


def _reply(value: Any) -> Any:
    """A Lua value as Redis would send it."""
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, bytes | int):
        return value
    if isinstance(value, float):
        return int(value)
    found: list[Any] = []
    while (each := value[len(found) + 1]) is not None:
        found.append(_reply(each))
    return found


@cache
def engine() -> Engine:
    """The runtime of this process."""
    return Engine()
