"""The pickle in a PyTorch file, read by a machine that knows tensors and nothing else.

Nothing is imported, called or set. The names that a pickle refers to are looked up in the tables
below; one that is not there, or an instruction that a dictionary of tensors does not need, is an
error.
"""

import pickletools
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import Any

import ml_dtypes
import numpy as np

from glm_jax.checkpoint.stored_tensor import check_name
from glm_jax.errors import InputError

_MAX_INSTRUCTIONS = 4_000_000  # a tensor takes about thirty
_STORAGES = {
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch BoolStorage": np.dtype(bool),
    "torch ByteStorage": np.dtype("uint8"),
    "torch CharStorage": np.dtype("int8"),
    "torch DoubleStorage": np.dtype("float64"),
    "torch FloatStorage": np.dtype("float32"),
    "torch HalfStorage": np.dtype("float16"),
    "torch IntStorage": np.dtype("int32"),
    "torch LongStorage": np.dtype("int64"),
    "torch ShortStorage": np.dtype("int16"),
}
_CALLED = (
    "collections OrderedDict",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
)


@dataclass(frozen=True)
class Storage:
    """`size` items of `dtype`, which lie in the file under `key`."""

    key: str
    dtype: np.dtype
    size: int


@dataclass(frozen=True)
class PickledTensor:
    """A view of a storage: items from `first` on, with strides in items. Not checked yet."""

    storage: Storage
    first: int
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]


@dataclass(frozen=True)
class _Global:
    name: str


def unpickle_tensors(data: bytes, file: str) -> dict[str, PickledTensor]:
    """The dictionary of tensors that `data`, of `file`, describes. Raises InputError."""
    try:
        value = _run(data)
    except (IndexError, KeyError, ValueError) as error:
        why = str(error)[:300] if isinstance(error, ValueError) else "damaged"
        only = "only a dictionary of tensors is read, and nothing is run"
        raise InputError(f"{file}: its pickle is refused: {why}; {only}") from None
    if not isinstance(value, dict):
        raise InputError(f"{file}: should be a dictionary of tensors, got {type(value).__name__}")
    for name, tensor in value.items():
        check_name(name, file)
        if not isinstance(tensor, PickledTensor):
            problem = f"{name!r} is no tensor, but {type(tensor).__name__}"
            raise InputError(f"{file}: should be a dictionary of tensors and no more; {problem}")
    return dict(value)


def _run(data: bytes) -> Any:
    stack: list[Any] = []
    outer: list[list[Any]] = []  # the stacks below the marks
    memo: dict[int, Any] = {}
    for opcode, argument, _ in islice(pickletools.genops(data), _MAX_INSTRUCTIONS):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                outer.append(stack)
                stack = []
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode.name[-1]))]
                stack.append(tuple(reversed(items)))
            case "TUPLE":
                items, stack = stack, outer.pop()
                stack.append(tuple(items))
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case "SETITEMS":
                items, stack = stack, outer.pop()
                _set_items(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_known(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if not (isinstance(name, str) and isinstance(module, str)):
                    raise ValueError("refers to a name that is no text")
                stack.append(_known(f"{module} {name}"))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":
                # a module's state_dict has an attribute _metadata, of which nothing is needed
                if not (isinstance(stack.pop(), dict) and isinstance(stack[-1], OrderedDict)):
                    raise ValueError("sets attributes")
            case other:
                of = f" {argument[:200]!r}" if isinstance(argument, str) else ""
                raise ValueError(f"has the instruction {other}{of}")
    raise ValueError("has no end, or is too long")


def _known(name: str) -> _Global:
    if name not in _STORAGES and name not in _CALLED:
        raise ValueError(f"refers to {name[:200].replace(' ', '.')!r}")
    return _Global(name)


def _set_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict):
        raise ValueError("sets items of what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str):
            raise ValueError("has a dictionary with keys that are no names")
        target[key] = value


def _storage(persistent_id: Any) -> Storage:
    match persistent_id:
        case ("storage", _Global(kind), str(key), str(), int(size)) if kind in _STORAGES:
            return Storage(key, _STORAGES[kind], size)
    raise ValueError("has an object that is no storage")


def _call(function: Any, arguments: Any) -> Any:
    """What the call would make. Of a tensor's arguments, those for gradients are left."""
    match function, arguments:
        case _Global("collections OrderedDict"), ():
            return OrderedDict()
        case _Global("torch._utils _rebuild_parameter"), (PickledTensor() as data, bool(), dict()):
            return data
        case (
            _Global("torch._utils _rebuild_tensor_v2"),
            (Storage() as storage, int(first), tuple(shape), tuple(strides), bool(), dict()),
        ):
            return PickledTensor(storage, first, shape, strides)
    raise ValueError("has a call that makes no plain tensor")
