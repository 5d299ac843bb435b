"""Records as tests spell them: in one line, with only what the test is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.records.verdict import Verdict


def global_model(
    path: str,
    digest: str,
    size_bytes: int,
    *,
    info: tuple[str, str] | None = None,
    state: tuple[str, str] | None = None,
    format: str = "",
    seal: str = "",
) -> GlobalModel:
    """A global model; `info` and `state` are path and digest of what lies beside it."""
    beside = [None if pair is None else ObjectRef(*pair) for pair in (info, state)]
    return GlobalModel(ObjectRef(path, digest, size_bytes, seal), *beside, format)


def changed(model: GlobalModel, **fields: Any) -> GlobalModel:
    """The model with other fields: those of its object, `format`, `info_path` ('' for none) and `info_digest`."""
    info = model.info
    if "info_path" in fields or "info_digest" in fields:
        before = info or ObjectRef("", "")
        path, digest = fields.pop("info_path", before.path), fields.pop("info_digest", before.digest)
        info = ObjectRef(path, digest) if path else None
    format_ = fields.pop("format", model.format)
    return replace(model, model=replace(model.model, **fields), info=info, format=format_)


def accepted(
    reason: str = "good",
    *,
    path: str = "runs/r/clients/a/0001-update",
    digest: str = "",
    size_bytes: int = 0,
    seal: str = "",
    format: str = "",
    num_examples: int = 0,
    info_path: str = "",
    info_digest: str = "",
    try_id: str = "",
    **more: Any,
) -> Verdict:
    """The acceptance of an update."""
    ref, info = ObjectRef(path, digest, size_bytes, seal), ObjectRef(info_path, info_digest)
    return Verdict(True, reason, Update(ref, info, format, num_examples, try_id=try_id), try_id=try_id, **more)
