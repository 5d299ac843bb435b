"""Read pickles without running anything that they name.

A pickle is a program that may name any importable callable. Here a name outside a short table becomes an `Inert`, which
can be called, built and filled, and does nothing. The names in the table stand for functions of this package. Nothing
is imported and no attribute is looked up for any pickle. So a checkpoint that also holds an optimizer or an
argparse.Namespace can be read, and a hostile one can call nothing.

The interpreter is the standard library's own, in Python, with each opcode replaced that calls or builds. In Python it
can also return large byte strings as views of the mapped file.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

from flavor.checkpoints.limits import is_bomb
from flavor.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Inert:
    """Stands for an object of a type that is not read; it ignores every operation on it."""

    global_name: str

    def append(self, _item: object) -> None:
        """Swallow an item of a list."""

    def extend(self, _items: object) -> None:
        """Swallow items of a list."""

    def add(self, _item: object) -> None:
        """Swallow an item of a set."""

    def __setitem__(self, _key: object, _value: object) -> None:
        """Swallow an item of a dict."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """An allowed callable: the function of this package for a name in a pickle."""

    global_name: str
    make: Callable[..., object]


class Buildable(Protocol):
    """An object that takes the state which the pickle gives it."""

    def set_state(self, state: object) -> None:
        """Take the state; raises ValueError if it is not one."""


class Reader:
    """A position in a buffer, as the file of an unpickler; reading past the end is an EOFError."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.position = 0
        self.size = len(view)

    def take(self, size: int) -> memoryview:
        """The next bytes as a view."""
        if size < 0 or size > len(self._view) - self.position:
            raise EOFError("it ends too early")
        self.position += size
        return self._view[self.position - size : self.position]

    def read(self, size: int) -> bytes:
        """The next bytes as a copy."""
        return bytes(self.take(size))

    def has(self, text: bytes) -> bool:
        """Return whether `text` occurs in what was read so far, or in its first MiB."""
        return text in bytes(self._view[: min(self.position, 1 << 20)])

    def readline(self) -> bytes:
        """The bytes up to the next newline, for the opcodes of protocol 0."""
        start, step = self.position, 4096
        for begin in range(start, len(self._view), step):
            found = bytes(self._view[begin : begin + step]).find(b"\n")
            if found >= 0:
                return self.read(begin + found + 1 - start)
        raise EOFError("it ends too early")


Globals = Mapping[tuple[str, str], object]

_JOBLIB = b"joblib.numpy_pickle"
_ITEM_BYTES = 64  # about what an item of a dict or list takes
_COPIED_BYTES = 4096  # shorter byte strings are plain bytes, which can be dict keys


class RestrictedUnpickler(pickle._Unpickler):
    """The unpickler; `names` is the table of globals, `persistent` resolves persistent ids."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, reader: Reader, names: Globals, persistent: Callable[[object], object] | None = None) -> None:
        super().__init__(cast(Any, reader))
        self._reader = reader
        self._names = names
        self._persistent = persistent
        self._unfolded, self._size = 0, reader.size

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global of this name, never the global itself."""
        known = self._names.get((module, name))
        if known is not None:
            return known
        return Inert("".join(letter if letter.isprintable() else "?" for letter in f"{module}.{name}"[:120]))

    def persistent_load(self, pid: object) -> Any:
        """Return what a persistent id stands for: in torch files, a storage."""
        if self._persistent is None:
            raise ValueError("it refers to storages outside")
        return self._persistent(pid)

    def get_extension(self, code: int) -> None:
        """Return an `Inert` for an extension code, which stands for a registered global."""
        self.stack.append(Inert(f"extension {code}"))

    def _call(self, function: object, arguments: object) -> object:
        if isinstance(function, Inert):
            return function
        if isinstance(function, Recipe) and isinstance(arguments, tuple):
            made = function.make(*arguments)
            if isinstance(made, bytes | dict | list | tuple):  # copied from what a few bytes may name again and again
                self._unfolded += len(made) * (1 if isinstance(made, bytes) else _ITEM_BYTES)
                if is_bomb(self._unfolded, self._size):
                    raise ValueError("it unfolds to far more than it holds")
            return made
        raise ValueError(f"it calls a {type(function).__name__}")

    def _on_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _on_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        arguments = self.stack.pop()
        if keywords and not isinstance(self.stack[-1], Inert):
            raise ValueError("it passes keywords")
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _on_obj(self) -> None:
        function, *arguments = self.pop_mark()
        self.stack.append(self._call(function, tuple(arguments)))

    def _on_inst(self) -> None:
        module, name = self._reader.readline()[:-1].decode(), self._reader.readline()[:-1].decode()
        self.stack.append(self._call(self.find_class(module, name), tuple(self.pop_mark())))

    def _on_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert | dict):
            return  # a dict's state is OrderedDict's _metadata
        if not hasattr(type(target), "set_state"):
            raise ValueError(f"it builds a {type(target).__name__}")
        cast(Buildable, target).set_state(state)

    def _on_frame(self) -> None:
        self._reader.take(8)  # a frame only says how much to read ahead

    def _on_binbytes(self) -> None:
        self._push_bytes(4)

    def _on_binbytes8(self) -> None:
        self._push_bytes(8)

    def _push_bytes(self, length_bytes: int) -> None:
        data = self._reader.take(int.from_bytes(self._reader.take(length_bytes), "little"))
        self.stack.append(data if len(data) > _COPIED_BYTES else bytes(data))

    dispatch.update(
        {
            pickle.REDUCE[0]: _on_reduce,
            pickle.NEWOBJ[0]: _on_reduce,
            pickle.NEWOBJ_EX[0]: _on_newobj_ex,
            pickle.OBJ[0]: _on_obj,
            pickle.INST[0]: _on_inst,
            pickle.BUILD[0]: _on_build,
            pickle.FRAME[0]: _on_frame,
            pickle.BINBYTES[0]: _on_binbytes,
            pickle.BINBYTES8[0]: _on_binbytes8,
            pickle.BYTEARRAY8[0]: _on_binbytes8,
        }
    )


def load(reader: Reader, names: Globals, where: str, persistent: Callable[[object], object] | None = None) -> object:
    """Read one pickle from the reader's position; raises `CheckpointError` for any problem in it."""
    try:
        return RestrictedUnpickler(reader, names, persistent).load()
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can fail in any of its opcodes
        if reader.has(_JOBLIB):
            raise CheckpointError(
                f"{where}: joblib wrote this file, whose arrays stand between the parts of its pickle; "
                'save it with pickle.dump({"state_dict": ...}, file)'
            ) from None
        reason = f"{type(error).__name__}: {error}"[:200].splitlines()[0]
        raise CheckpointError(f"{where}: a damaged pickle ({reason}); save the checkpoint again") from None
