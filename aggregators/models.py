"""The models of one aggregation: compare their structures, and read their blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from aggregators.blocks import Scratch, Span, ordered_sum, spans, threads_for
from aggregators.computed import ComputedTensor, Tensor
from aggregators.dtypes import Array, Kind, compute_dtype, kind_of, widen
from aggregators.parts import Stored, flat, part
from aggregators.protocols import SCAN_BLOCK, Block, scan_block
from flavor.checkpoints.compare import structure_problems
from flavor.checkpoints.unmapped import FileTensor
from flavor.errors import AggregationError


def check_compatible(models: Sequence[Mapping[str, Tensor]], global_model: Mapping[str, Stored] | None = None) -> None:
    """Raise unless all `models` have the same tensor names, shapes and dtypes.

    They are held against `global_model` where there is one, else against client 0's.

    Raises:
        AggregationError: one line that names the client's index and the first tensors that are missing, extra,
            or of another shape or dtype; or there are no models; or a dtype that cannot be aggregated.

    """
    if not models:
        raise AggregationError("there is nothing to aggregate: no client's model was given")
    reference: Mapping[str, Tensor] = models[0] if global_model is None else global_model
    owner = "client 0" if global_model is None else "the global model"
    for name, tensor in reference.items():
        try:
            kind_of(tensor.dtype)
        except AggregationError as error:
            raise AggregationError(f"{owner}: tensor {name!r}: {error}") from None
    for client, model in enumerate(models):
        if problems := structure_problems(model, reference, owner):
            raise AggregationError(f"client {client}: {problems}")


class Streamed(Sequence[Array]):
    """Rows that are written when they are asked for: the first to memory of its own, all others to the same memory.

    A row other than the first is lost once another one is asked for; asked for again, it is written again. So the
    memory of a block does not grow with the clients, and stays in a cache.
    """

    def __init__(self, count: int, row: Callable[[int, int], Array]) -> None:
        """`row(index, slot)` writes a row to slot 0 or 1, and returns it."""
        self._count, self._row = count, row
        self._held: dict[int, tuple[int, Array]] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        slot = min(index, 1)
        held = self._held.get(slot)
        if held is None or held[0] != index:
            held = self._held[slot] = (index, self._row(index, slot))
        return held[1]


class Models:
    """Flat views of n compatible models and, where there is one, of the old global model.

    Arrays are viewed, and copied only if they are not C-contiguous. Computed tensors and tensors in files that are only
    read stay as they are. The `held` tensors are of a kind of their own, and no rule reads them. `like` is one of the
    models, whose structure is that of all.
    """

    def __init__(
        self,
        models: Sequence[Mapping[str, Tensor]],
        global_model: Mapping[str, Stored] | None,
        threads: int | None,
        *,
        held: Collection[str] = frozenset(),
    ) -> None:
        check_compatible(models, global_model)
        self.n = len(models)
        self.names = tuple(models[0])
        self.like = models[0]
        self._models = models
        self.shapes = {name: tensor.shape for name, tensor in models[0].items()}
        self.dtypes = {name: tensor.dtype for name, tensor in models[0].items()}
        self.kinds = {name: Kind.HELD if name in held else kind_of(dtype) for name, dtype in self.dtypes.items()}
        self.flat = {name: [_flat(model[name]) for model in models] for name in self.names}
        elements = self.n * sum(rows[0].size for rows in self.flat.values())
        self.threads = threads_for(elements) if threads is None else threads
        self.statistics: frozenset[str] = frozenset()
        """The float tensors that are told to be no parameters."""
        self.base = None if global_model is None else {name: flat(global_model[name]) for name in self.names}

    def tensors(self, name: str) -> list[Tensor]:
        """Return this tensor of each client, of its own shape."""
        return [model[name] for model in self._models]

    def sizes(self, *kinds: Kind) -> dict[str, int]:
        """Return the number of elements of each tensor of these kinds."""
        return {name: self.flat[name][0].size for name in self.names if self.kinds[name] in kinds}

    def block(self, span: Span, clients: Sequence[int], scratch: Scratch, *, streamed: bool = False) -> Block:
        """Return `span` of these clients' float tensor, in the type that it is reduced in.

        `streamed`: rows that have to be written are written when they are asked for; see `Streamed`.
        """
        written = self.written_rows(span.name, clients, streamed=streamed)
        room = scratch.rows("widened", written, span.stop - span.start, compute_dtype(self.dtypes[span.name]))
        rows: Sequence[Array]
        if streamed:
            rows = Streamed(len(clients), lambda index, slot: self._row(span, clients[index], room[slot:], scratch))
        else:
            rows, used = [], 0
            for client in clients:
                rows.append(self._row(span, client, room[used:], scratch))
                used += self._is_written(span.name, client)
        return Block(rows, self.base_block(span, scratch), scratch, span.name not in self.statistics)

    def _row(self, span: Span, client: int, room: Array, scratch: Scratch) -> Array:
        """Return one client's row: a view where possible, else written to the first row of `room`."""
        tensor = self.flat[span.name][client]
        if isinstance(tensor, ComputedTensor):
            tensor.decode(span.start, span.stop, room[0], scratch)
        elif tensor.dtype != compute_dtype(tensor.dtype):
            widen(part(tensor, span.start, span.stop, scratch, "narrow"), room[0])
        elif isinstance(tensor, FileTensor):
            tensor.read(span.start, room[0])
        else:
            return tensor[span.start : span.stop]
        written: Array = room[0]
        return written

    def _is_written(self, name: str, client: int) -> bool:
        """Return whether this client's rows have to be written, because no view can show them."""
        tensor = self.flat[name][client]
        return tensor.dtype != compute_dtype(tensor.dtype) or isinstance(tensor, ComputedTensor | FileTensor)

    def written_rows(self, name: str, clients: Sequence[int], *, streamed: bool = False) -> int:
        """Return how many rows `block` writes for these clients' tensor."""
        written = sum(self._is_written(name, client) for client in clients)
        return min(written and 2, len(clients)) if streamed else written

    def slices(self, span: Span, clients: Sequence[int], scratch: Scratch) -> list[Array]:
        """Return `span` of these clients' integer or bool tensor: as it lies, or computed."""
        rows: list[Array] = []
        for index, client in enumerate(clients):
            tensor = self.flat[span.name][client]
            if isinstance(tensor, ComputedTensor):
                row = scratch.row(f"whole {index}", span.stop - span.start, tensor.dtype)
                tensor.decode(span.start, span.stop, row, scratch)
                rows.append(row)
            else:
                rows.append(part(tensor, span.start, span.stop, scratch, f"whole {index}"))
        return rows

    def base_block(self, span: Span, scratch: Scratch) -> Array | None:
        """Return `span` of the old global model's float tensor, in the type that it is reduced in."""
        if self.base is None:
            return None
        dtype = compute_dtype(self.dtypes[span.name])
        source = part(self.base[span.name], span.start, span.stop, scratch, "base")
        if source.dtype == dtype:
            return source
        base = scratch.row("widened base", source.size, dtype)
        widen(source, base)
        return base

    def sum(self, part: Callable[[Block], Array], shape: tuple[int, ...], block_elems: int = SCAN_BLOCK) -> Array:
        """Return the float64 sum of `part(block)` over all blocks of the float tensors, in a fixed order."""
        everyone = range(self.n)

        def of_span(span: Span, scratch: Scratch) -> Array:
            return part(self.block(span, everyone, scratch))

        sizes = self.sizes(Kind.FLOAT)
        widened = min(block_elems, scan_block(self.n))
        cut = {n: widened if self.written_rows(n, everyone) else block_elems for n in sizes}
        blocks: Iterator[Span] = spans(sizes, cut)
        return ordered_sum(blocks, of_span, shape, self.threads)


def _flat(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, ComputedTensor) else flat(tensor)
