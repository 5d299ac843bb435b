"""The models of one aggregation: whether they fit together, and their blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from aggregators.dtypes import Array, Kind, compute_dtype, kind_of, widen
from aggregators.encoded import EncodedTensor, Tensor
from aggregators.parts import Stored, flat, part
from aggregators.protocols import SCAN_BLOCK, Block, scan_block
from aggregators.walk import Scratch, Span, ordered_sum, spans
from flavor.errors import AggregationError
from flavor.store.formats.unmapped import FileTensor


def check_compatible(models: Sequence[Mapping[str, Tensor]], global_model: Mapping[str, Stored] | None = None) -> None:
    """Raise unless all `models` have the same tensor names, shapes and dtypes.

    They are held against `global_model` where there is one, else against client 0's.

    Raises:
        AggregationError: one line that names the client's index and the first tensor that is missing, extra,
            or has another shape or dtype; or there are no models; or a dtype that cannot be aggregated.

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
        for name in reference:
            if name not in model:
                raise AggregationError(f"client {client}: tensor {name!r} is missing ({owner} has it)")
        for name, tensor in model.items():
            if name not in reference:
                raise AggregationError(f"client {client}: extra tensor {name!r} ({owner} has none of that name)")
            expected = reference[name]
            if tensor.shape != expected.shape:
                raise AggregationError(
                    f"client {client}: tensor {name!r} has shape {tensor.shape}, {owner} has {expected.shape}"
                )
            if tensor.dtype != expected.dtype:
                raise AggregationError(
                    f"client {client}: tensor {name!r} is {tensor.dtype}, {owner} has {expected.dtype}"
                )


class Models:
    """Flat views of n compatible models and, where there is one, of the old global model.

    Arrays are viewed, not copied, unless they are not C-contiguous; encoded tensors, and those in files that are only
    read, stay as they are. Those `held` are
    of a kind of their own, which no rule looks at.
    """

    def __init__(
        self,
        models: Sequence[Mapping[str, Tensor]],
        global_model: Mapping[str, Stored] | None,
        threads: int,
        *,
        held: Collection[str] = frozenset(),
    ) -> None:
        check_compatible(models, global_model)
        self.n = len(models)
        self.threads = threads
        self.names = tuple(models[0])
        self.shapes = {name: tensor.shape for name, tensor in models[0].items()}
        self.dtypes = {name: tensor.dtype for name, tensor in models[0].items()}
        self.kinds = {name: Kind.HELD if name in held else kind_of(dtype) for name, dtype in self.dtypes.items()}
        self.flat = {name: [_flat(model[name]) for model in models] for name in self.names}
        self.base = None if global_model is None else {name: flat(global_model[name]) for name in self.names}

    def sizes(self, *kinds: Kind) -> dict[str, int]:
        """Return the number of elements of each tensor of these kinds."""
        return {name: self.flat[name][0].size for name in self.names if self.kinds[name] in kinds}

    def block(self, span: Span, clients: Sequence[int], scratch: Scratch) -> Block:
        """Return `span` of these clients' float tensor, in the type that it is reduced in."""
        tensors = self.flat[span.name]
        dtype = compute_dtype(self.dtypes[span.name])
        size = span.stop - span.start
        room = iter(scratch.rows("widened", self.written_rows(span.name, clients), size, dtype))
        rows: list[Array] = []
        for client in clients:
            tensor = tensors[client]
            if isinstance(tensor, EncodedTensor):
                rows.append(next(room))
                tensor.decode(span.start, span.stop, rows[-1], scratch)
            elif tensor.dtype != dtype:
                rows.append(next(room))
                widen(part(tensor, span.start, span.stop, scratch, "narrow"), rows[-1])
            elif isinstance(tensor, FileTensor):
                rows.append(next(room))
                tensor.read(span.start, rows[-1])
            else:
                rows.append(tensor[span.start : span.stop])
        return Block(rows, self.base_block(span, scratch), scratch)

    def written_rows(self, name: str, clients: Sequence[int]) -> int:
        """Return how many of these clients' rows `block` has to write: those it cannot show as they lie."""
        if self.dtypes[name] != compute_dtype(self.dtypes[name]):
            return len(clients)
        return sum(isinstance(self.flat[name][client], EncodedTensor | FileTensor) for client in clients)

    def slices(self, span: Span, clients: Sequence[int], scratch: Scratch) -> list[Array]:
        """Return `span` of these clients' integer or bool tensor, as it lies."""
        rows: list[Array] = []
        for index, client in enumerate(clients):
            tensor = self.flat[span.name][client]
            assert not isinstance(tensor, EncodedTensor)  # which are floats
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
    return tensor if isinstance(tensor, EncodedTensor) else flat(tensor)
