"""Reading plain data out of a pickle without running anything that it says.

`load` interprets the few opcodes that build lists, tuples, bytes, text, bools and integers. It never
imports a name and never calls anything that the file names: the handful of names that real files hold
(numpy bools and byte arrays, Python-2 style bytes) stand for inert functions of this module. Every other
name or opcode is refused.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class RefusedPickleError(ValueError):
    """The pickle holds more than plain data, or is damaged."""


@dataclass
class _Dtype:
    """What a pickled numpy dtype says; only one-byte bools and integers."""

    code: str


@dataclass
class _Array:
    """A pickled numpy array of bytes or bools, kept as raw bytes."""

    items: list[Any] = field(default_factory=list)
    raw: bytes | None = None


class _Mark:
    """The pickle machine's mark."""


_MARK = _Mark()
_DTYPES = {"b1": "bool", "?": "bool", "u1": "uint8", "|b1": "bool", "|u1": "uint8"}


def _encode(text: Any, encoding: Any) -> bytes:
    """``_codecs.encode``: how Python 3 writes bytes in protocols below 3."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickleError("a text encoded in another way than latin1")
    return text.encode("latin-1")


def _bytes(*arguments: Any) -> bytes:
    if arguments:
        raise RefusedPickleError("bytes made from something")
    return b""


def _dtype(code: Any, *_: Any) -> _Dtype:
    name = code.decode("ascii", "replace") if isinstance(code, bytes) else code
    if name not in _DTYPES:
        raise RefusedPickleError(f"numpy data of type {name!r}; allowed: bool, uint8")
    return _Dtype(_DTYPES[name])


def _scalar(dtype: Any, raw: Any) -> bool | int:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or len(raw) != 1:
        raise RefusedPickleError("a numpy scalar that is not one byte")
    return bool(raw[0]) if dtype.code == "bool" else raw[0]


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _ARRAY_TYPE:
        raise RefusedPickleError("a numpy object that is not an array")
    return _Array()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    array = _Array()
    _set_array(array, (1, shape, dtype, order == "F", raw))
    return array


def _set_array(array: _Array, state: Any) -> None:
    """The state of a pickled numpy array: version, shape, dtype, Fortran order, raw bytes."""
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise RefusedPickleError("a damaged numpy array")
    shape, dtype, _, raw = state[-4:]
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or not isinstance(shape, tuple):
        raise RefusedPickleError("a numpy array that is not of bytes or bools")
    if len(shape) != 1 or shape[0] != len(raw):
        raise RefusedPickleError(f"a numpy array of shape {shape!r} with {len(raw)} bytes; expected one dimension")
    array.raw = raw if dtype.code == "uint8" else None
    array.items = [bool(b) for b in raw] if dtype.code == "bool" else []


_ARRAY_TYPE = object()
_NAMES: dict[str, Any] = {"_codecs encode": _encode, "builtins bytes": _bytes, "__builtin__ bytes": _bytes}
_NAMES |= {"numpy dtype": _dtype, "numpy ndarray": _ARRAY_TYPE}
for _module in ("numpy.core", "numpy._core"):
    _NAMES |= {
        f"{_module}.multiarray scalar": _scalar,
        f"{_module}.multiarray _reconstruct": _reconstruct,
        f"{_module}.numeric _frombuffer": _from_buffer,
    }

_TEXT = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_OLD_BYTES = ("STRING", "BINSTRING", "SHORT_BINSTRING")
_INTEGERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_IGNORED = ("PROTO", "FRAME", "READONLY_BUFFER")


def load(data: bytes) -> Any:
    """The plain data of a pickle: lists, tuples, bytes, str, bool, int, None.

    Python-2 strings become bytes; numpy bools become bool, uint8 arrays bytes, bool arrays lists.

    Raises:
        RefusedPickleError: anything else in it (nothing of it has been run), or a damaged file.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
            if opcode.name == "STOP":
                return _plain(machine.pop(), {})
            machine.step(opcode.name, argument)
    except RefusedPickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RefusedPickleError(f"damaged pickle ({error})") from error
    raise RefusedPickleError("damaged pickle (no end)")


class _Machine:
    """The stack and memo of the pickle virtual machine, for plain data only."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise RefusedPickleError("damaged pickle (mark)")
        return value

    def pop_mark(self) -> list[Any]:
        """The values above the topmost mark; the mark goes too."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise RefusedPickleError("damaged pickle (no mark)")

    def step(self, name: str, argument: Any) -> None:
        """Apply one opcode.

        Raises:
            RefusedPickleError: an opcode or a name that plain data does not need.
        """
        push = self.stack.append
        if name in _TEXT or name in _INTEGERS:
            push(argument)
        elif name in _BYTES:
            push(bytes(argument))
        elif name in _OLD_BYTES:
            push(argument.encode("latin-1"))
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name == "MARK":
            push(_MARK)
        elif name in ("EMPTY_LIST", "EMPTY_TUPLE"):
            push([] if name == "EMPTY_LIST" else ())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            push(tuple(self.pop() for _ in range(count))[::-1])
        elif name in ("TUPLE", "LIST"):
            values = self.pop_mark()
            push(tuple(values) if name == "TUPLE" else values)
        elif name in ("APPEND", "APPENDS"):
            self._append([self.pop()] if name == "APPEND" else self.pop_mark())
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self.memo[argument])
        elif name == "GLOBAL":
            push(_named(argument))
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            push(_named(f"{module} {attribute}"))
        elif name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            push(_call(function, arguments))
        elif name == "BUILD":
            self._build(self.pop())
        elif name not in _IGNORED:
            raise RefusedPickleError(f"pickle opcode {name}, which plain data does not need")

    def _append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise RefusedPickleError("damaged pickle (append)")
        target.extend(values)

    def _build(self, state: Any) -> None:
        target = self.stack[-1]
        if isinstance(target, _Array):
            _set_array(target, state)
        elif not isinstance(target, _Dtype):
            raise RefusedPickleError("an object with a state of its own")


def _named(name: str) -> Any:
    if name not in _NAMES:
        raise RefusedPickleError(f"the name {name.replace(' ', '.')!r}; only plain data is read, nothing was run")
    return _NAMES[name]


def _call(function: Any, arguments: Any) -> Any:
    callables: list[Callable[..., Any]] = [v for v in _NAMES.values() if v is not _ARRAY_TYPE]
    if not any(function is known for known in callables) or not isinstance(arguments, tuple):
        raise RefusedPickleError("a call of something that is not a function of ours")
    return function(*arguments)


def _plain(value: Any, seen: dict[int, bool], depth: int = 0) -> Any:
    """A copy without stand-ins; a list inside itself or deep nesting is refused."""
    if value is None or isinstance(value, bool | int | str | bytes):
        return value
    if isinstance(value, _Array):
        return value.raw if value.raw is not None else value.items
    if isinstance(value, list | tuple):
        if depth > 4 or id(value) in seen:
            raise RefusedPickleError("lists nested too deeply, or shared")
        seen[id(value)] = True
        return type(value)(_plain(item, seen, depth + 1) for item in value)
    raise RefusedPickleError("something that is not plain data")
