"""Read files of torch.save without torch: zips of today, and chains of pickles from before torch 1.6."""

from __future__ import annotations

from flavor.checkpoints.limits import MAX_TENSORS
from flavor.checkpoints.mapped import Mapped
from flavor.checkpoints.pickles.reader import Globals, Inert, Reader, load
from flavor.checkpoints.torch.tensors import Storage, StorageType, torch_globals
from flavor.checkpoints.zip_entries import ZipEntries
from flavor.errors import CheckpointError

LEGACY_NUMBER = 0x1950A86A20F9469CFC6C


def load_torch(source: Mapped) -> object:
    """Return the object in a torch file, of either kind; its tensors are not realized yet."""
    if bytes(source.view[:4]) in {b"PK\x03\x04", b"PK\x05\x06"}:
        return _load_zip(source)
    return load_legacy(source.view, source.name)


def load_pickle(source: Mapped) -> object:
    """Return the object in a plain pickle, which may hold ndarrays and torch tensors."""
    return load(Reader(source.view), _globals(source.name), source.name)


def _globals(where: str) -> Globals:
    def load_from_bytes(data: object) -> object:
        if not isinstance(data, bytes | memoryview):
            raise ValueError("a storage that is no bytes")
        return load_legacy(memoryview(data), where, is_nested=True)

    return torch_globals(load_from_bytes)


def _load_zip(source: Mapped) -> object:
    archive = ZipEntries(source)
    pickles = [name for name in archive.names if name.partition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError(f"{source.name}: a zip without one data.pkl; save it with torch.save")
    root = pickles[0].partition("/")[0]
    _check_order(
        f"{root}/byteorder" not in archive.names or bytes(archive.read(f"{root}/byteorder")) == b"little",
        source.name,
    )
    storages: dict[str, Storage] = {}

    def persistent(pid: object) -> object:
        if _is_unread(pid):
            return Inert("torch storage")
        kind, key, numel, _ = _parse_id(pid)
        if key not in storages:
            data = archive.read(f"{root}/data/{key}")
            if len(data) != numel * kind.itemsize:
                raise CheckpointError(f"{source.name}: storage {key!r} is cut short; save the checkpoint again")
            storages[key] = Storage(kind, data)
        return storages[key]

    return load(Reader(archive.read(pickles[0])), _globals(source.name), source.name, persistent)


def load_legacy(view: memoryview, where: str, *, is_nested: bool = False) -> object:
    """Return the object in a legacy torch file, or in the bytes with which a plain pickle writes a torch storage."""
    reader = Reader(view)
    names: Globals = torch_globals(_refuse_nesting) if is_nested else _globals(where)
    if load(reader, {}, where) != LEGACY_NUMBER:
        raise CheckpointError(f"{where}: not a torch file inside; save it with torch.save")
    load(reader, {}, where)  # the version, always 1001
    system = load(reader, {}, where)
    _check_order(isinstance(system, dict) and system.get("little_endian") is True, where)
    storages: dict[str, tuple[Storage, int]] = {}
    parts: list[tuple[Storage, Storage, int, int]] = []

    def persistent(pid: object) -> object:
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
            return pid[1]  # the class of a module, with its source
        kind, key, numel, part = _parse_id(pid)
        whole, _ = storages.setdefault(key, (Storage(kind), numel))
        if part is None:
            return whole
        view_of = Storage(kind)
        parts.append((view_of, whole, *part))
        return view_of

    root = load(reader, names, where, persistent)
    keys = load(reader, {}, where)
    listed = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    if not isinstance(keys, list) or not len(listed) == len(keys) <= MAX_TENSORS or set(listed) != set(storages):
        raise CheckpointError(f"{where}: its list of storages is damaged; save the checkpoint again")
    try:
        for key in listed:
            storage, numel = storages[key]
            if int.from_bytes(reader.take(8), "little") != numel:
                raise ValueError("a storage of another length")
            storage.data = reader.take(numel * storage.kind.itemsize)
        for view_of, whole, offset, size in parts:
            view_of.data = whole.part(offset, size).data
    except (EOFError, ValueError) as error:
        raise CheckpointError(f"{where}: damaged storages ({error}); save the checkpoint again") from None
    return root


def _parse_id(pid: object) -> tuple[StorageType, str, int, tuple[int, int] | None]:
    """Type, key, number of elements and, in old files, offset and size of the part of a storage."""
    match pid:
        case ("storage", StorageType() as kind, str() as key, _, int() as numel, *rest) if numel >= 0:
            match rest:
                case [] | [None]:
                    return kind, key, numel, None
                case [(_, int() as offset, int() as size)]:
                    return kind, key, numel, (offset, size)
    raise ValueError("a storage of a kind that is not read")


def _is_unread(pid: object) -> bool:
    """Return whether a storage is of an unknown kind, which only matters inside state_dict."""
    return isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "storage" and isinstance(pid[1], Inert)


def _check_order(is_little: bool, where: str) -> None:
    if not is_little:
        raise CheckpointError(f"{where}: saved on a big-endian machine; save it on a little-endian one")


def _refuse_nesting(_: object) -> object:
    raise ValueError("a torch file in a torch file in a pickle")
