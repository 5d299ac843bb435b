"""Updates smaller than the model: an edge sends its change, rounded, instead of its parameters.

The change is the pseudogradient Δ = θ − θᵢ, old minus new, to the global model that the round started from. The file
stays a safetensors file that any library reads; `flavor.encoding` in its metadata says what it holds::

    {"kind": "bf16" | "int8", "block": 4096, "base": SHA-256 of the global model's file, hex}

    kind   float32 tensor NAME becomes                 float16 and bfloat16         all others
    bf16   NAME: BF16, Δ rounded to nearest even       their values, as they are    their values, as they are
    int8   NAME: I8, q, and flavor.scale/NAME: F32     likewise q and scales        their values, as they are

int8: q = round(Δ / scale), to nearest even, and scale = max |Δ| / 127 over each `block` consecutive elements of the
flattened tensor (the last block may be shorter), so `flavor.scale/NAME` is `[⌈elements / block⌉]`, and no element is
off by more than half its block's scale. A block that has not changed has the scale 0.

Any tensor may also travel as it is, in its own type: an edge sends so what has few elements, and the statistics of a
normalisation, in which one channel may move a million times as far as another. What int8 rounds to 0 is lost in that
round, and in each one in which it is again so much smaller than the largest change of its block: there is no error
feedback, that is, a site keeps nothing of it for the next round.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from flavor.checkpoints.blocks import RELEASE_BYTES, Array, map_of
from flavor.checkpoints.checkpoint import ENCODING_KEY, SCALE_PREFIX, safetensors_metadata
from flavor.checkpoints.compare import same_bits, structure_problems
from flavor.checkpoints.convert import Outgoing, WireInfo
from flavor.checkpoints.dtypes import BFLOAT16, DType
from flavor.checkpoints.finite import is_finite
from flavor.checkpoints.format import Format
from flavor.checkpoints.mapped import release
from flavor.checkpoints.safetensors.header import TensorSpec
from flavor.checkpoints.safetensors.reader import TensorFile
from flavor.checkpoints.safetensors.writer import TensorFileWriter
from flavor.disk import StrPath
from flavor.errors import CheckpointError
from flavor.parts import WHOLE, Parts
from flavor.records.objects import is_digest

EncodingKind = Literal["bf16", "int8"]

BLOCK = 4096
"""Elements that share a scale: 0.1 % more bytes than int8 alone."""
MAX_BLOCK = 2**20
PLAIN_BELOW = 256
"""A tensor with fewer elements travels as it is: it saves little, and a bias is not rounded."""

_LEVELS = np.float32(127)  # symmetric: -128 is never written
_CHUNK = 64 * 1024  # elements that are worked on at once, which stay in cache
_RELEASE_BYTES = 32 * 2**20
_FLOAT32 = np.dtype(np.float32)
_INT8 = np.dtype(np.int8)
_COVERED: dict[str, frozenset[DType]] = {
    "bf16": frozenset({_FLOAT32}),
    "int8": frozenset({_FLOAT32, np.dtype(np.float16), BFLOAT16}),
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of an update, and the digest of the global model that the update is a difference to."""

    kind: EncodingKind
    base: str
    block: int = BLOCK
    plain: frozenset[str] = frozenset()
    """The tensors that travel as they are although their type is covered. In a file their type shows it."""

    @classmethod
    def sparing(cls, kind: EncodingKind, base: str, model: Iterable[TensorSpec], statistics: Iterable[str]) -> Encoding:
        """Return the encoding of an update of this model; small tensors and `statistics` travel as they are."""
        named = frozenset(statistics)
        plain = (spec.name for spec in model if spec.name in named or _elements(spec) < PLAIN_BELOW)
        return cls(kind, base, plain=frozenset(plain))

    def of_file(self, file: TensorFile, model: Iterable[TensorSpec]) -> Encoding:
        """Return the encoding with the tensors of the model that travel as they are in this file."""
        plain = (spec.name for spec in model if spec.name in file and file.dtype(spec.name) == spec.dtype)
        return replace(self, plain=frozenset(plain))

    def covers(self, name: str, dtype: DType) -> bool:
        """Return whether this tensor, of this type, travels as a difference; the others travel as they are."""
        return dtype in _COVERED[self.kind] and name not in self.plain

    def specs(self, model: Iterable[TensorSpec]) -> list[TensorSpec]:
        """Return the specs of an encoded update of a model with these tensors; scales follow their tensor."""
        return [spec for tensor in model for spec in self._encoded(tensor)]

    def _encoded(self, tensor: TensorSpec) -> Iterator[TensorSpec]:
        if not self.covers(tensor.name, tensor.dtype):
            yield tensor
        elif self.kind == "bf16":
            yield TensorSpec(tensor.name, BFLOAT16, tensor.shape)
        else:
            elements = _elements(tensor)
            yield TensorSpec(tensor.name, _INT8, tensor.shape)
            yield TensorSpec(SCALE_PREFIX + tensor.name, _FLOAT32, (-(-elements // self.block),))

    def to_json(self) -> str:
        """Return the encoding as it stands in the metadata."""
        return json.dumps({"kind": self.kind, "block": self.block, "base": self.base}, separators=(",", ":"))

    @classmethod
    def of(cls, file: TensorFile) -> Encoding | None:
        """Return the encoding of an update; None when its tensors are the parameters themselves.

        Raises `CheckpointError` when the metadata does not describe an existing encoding.
        """
        text = file.metadata.get(ENCODING_KEY)
        if text is None:
            return None
        try:
            table = json.loads(text)
        except (ValueError, RecursionError):
            table = None
        if not isinstance(table, dict) or table.keys() != {"kind", "block", "base"}:
            raise CheckpointError(f"{ENCODING_KEY} is damaged: it holds kind, block and base; let the edge write it")
        kind, block, base = table["kind"], table["block"], table["base"]
        if kind not in get_args(EncodingKind):
            raise CheckpointError(
                f"{ENCODING_KEY}: unknown kind {kind!r:.40}; there are: {', '.join(get_args(EncodingKind))}"
            )
        if type(block) is not int or not 1 <= block <= MAX_BLOCK:
            raise CheckpointError(f"{ENCODING_KEY}: block is {block!r:.40}; it is an integer from 1 to {MAX_BLOCK}")
        if not isinstance(base, str) or not is_digest(base):
            raise CheckpointError(f"{ENCODING_KEY}: base is {base!r:.80}; it is a SHA-256 in hex")
        return cls(kind, base, block)


def _elements(tensor: TensorSpec) -> int:
    return tensor.size_bytes // tensor.dtype.itemsize


def encode(
    src: StrPath,
    dest: StrPath,
    base: TensorFile,
    encoding: Encoding,
    fmt: Format | None = None,
    *,
    bare: bool = False,
    parts: Parts = WHOLE,
) -> WireInfo:
    """Write a trainer's checkpoint to `dest` as its difference to the global model `base`, with its digest.

    Needs a few blocks of memory beside the mapped files. Raises `CheckpointError` for a file that cannot be read, does
    not have the global model's names, shapes and dtypes, or has NaN or infinite values; `StoreError` when `dest` cannot
    be written. `bare` and `parts` are those of `Outgoing.of`.
    """
    outgoing = Outgoing.of(src, fmt, bare=bare, parts=parts)
    checkpoint = outgoing.sent
    local = {spec.name: spec for spec in checkpoint.specs}
    if problems := structure_problems(local, {spec.name: spec for spec in base.specs}, "the global model"):
        raise CheckpointError(problems)
    metadata = {**safetensors_metadata(checkpoint), ENCODING_KEY: encoding.to_json()}
    with TensorFileWriter(dest, encoding.specs(checkpoint.specs), metadata) as writer:
        target = writer.map()
        is_large = writer.size_bytes >= RELEASE_BYTES  # for a small one, a thread that hashes costs more
        for name, array in checkpoint.tensors.items():
            if not encoding.covers(name, array.dtype):
                target[name][...] = array
                fine = name not in encoding.plain or is_finite(array.reshape(-1))
            else:
                scales = target.get(SCALE_PREFIX + name)
                fine = _encode_tensor(base.tensor(name), array, target[name], scales, encoding.block)
            written = [part for part in (name, SCALE_PREFIX + name) if part in target]
            if not fine:
                if not same_bits(base.tensor(name), array):
                    raise CheckpointError(
                        f"tensor {name!r} has NaN or infinite values; look for NaN in the data, "
                        "lower the learning rate or clip the gradients"
                    )
                if encoding.covers(
                    name, array.dtype
                ):  # a mask of -inf, say: −inf − (−inf) is none, yet nothing changed
                    for part in written:
                        target[part].fill(0)
            for part in written if is_large else ():
                writer.completed(part)
        del target  # the mapped file is closed with the writer
    return outgoing.info(writer)


def _encode_tensor(theta: Array, local: Array, values: Array, scales: Array | None, block: int) -> bool:
    """Write θ − `local` to `values` and `scales`; return False when it is not finite, before or after rounding."""
    theta, values = theta.reshape(-1), values.reshape(-1)
    maps = [mapped for array in (theta, local) if (mapped := map_of(array)) is not None]
    local = np.ascontiguousarray(local).reshape(-1)  # a strided one is copied
    step = max(1, _CHUNK // block) * block
    delta, room = np.empty((2, min(step, max(local.size, 1))), np.float32)
    unreleased = 0
    for start in range(0, local.size, step):
        stop = min(start + step, local.size)
        change, other = delta[: stop - start], room[: stop - start]
        np.copyto(change, theta[start:stop], casting="unsafe")  # float16 and bfloat16 fit
        np.copyto(other, local[start:stop], casting="unsafe")
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(change, other, out=change)
            if scales is None:
                np.copyto(values[start:stop], change, casting="unsafe")
                fine = is_finite(values[start:stop])
            else:
                fine = quantise(change, values[start:stop], scales[start // block : -(-stop // block)], block)
        if not fine:
            return False
        unreleased += change.nbytes
        if unreleased >= _RELEASE_BYTES:
            for mapped in maps:
                release(mapped)
            unreleased = 0
    return True


def quantise(change: Array, values: Array, scales: Array, block: int) -> bool:
    """Write round(`change` / scale) to `values` and each block's scale to `scales`; return False if not all is finite.

    `change` is float32 `[m]` and is overwritten, `values` int8 `[m]`, `scales` float32 `[⌈m / block⌉]`. Rounds to
    nearest even: measurements show that unbiased random rounding loses (benchmarks/README.md).
    """
    whole = change.size // block * block
    for start, stop in ((0, whole), (whole, change.size)):
        if start == stop:
            continue
        rows = change[start:stop].reshape(-1, min(block, stop - start))
        scale = scales[start // block : -(-stop // block)]
        peak = np.maximum(rows.max(axis=1), -rows.min(axis=1))  # NaN if there is one
        if not np.isfinite(peak).all():
            return False
        np.divide(peak, _LEVELS, out=scale)
        # Among the smallest numbers that float32 has, a rounded scale may not reach the peak.
        short = scale * np.float64(_LEVELS) < peak
        np.nextafter(scale, np.float32(np.inf), out=scale, where=short)
        np.divide(rows, np.where(scale == 0, np.float32(1), scale)[:, None], out=rows)
        np.rint(rows, out=rows)
        np.copyto(values[start:stop].reshape(rows.shape), rows, casting="unsafe")
    return True
