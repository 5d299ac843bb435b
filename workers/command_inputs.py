"""The inputs of a user's aggregator: the clients' models as files in the trainers' format, and all information."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flavor.checkpoints import TensorFileWriter
from flavor.programs.aggregator_files import RoundFiles
from workers.combiner import Work
from workers.stale import moved
from workers.updates import open_global, open_updates, place_update


def laid_out(work: Work, folder: Path) -> RoundFiles:
    """Write the contributors' models below `folder` as their trainers saved them, and all information.

    The model of a client that trained from an older global model is moved onto the newest one.
    """
    files = RoundFiles.below(folder, work.infos, extension=work.config.kind.extension(work.format))
    for index, info in enumerate(work.infos.values()):
        files.write_local_info(index, info)
    files.write_global_info(work.info)
    for client, path in zip(work.updates, files.local_models, strict=True):
        _lay_out(work, client, path)
    work.opened.finish()  # a site may change its object while the command works
    return files


def _lay_out(work: Work, client: str, path: Path) -> None:
    kind, update, model = work.config.kind, work.updates[client], None
    if kind.has_tensors:
        (model,) = open_updates(work.opened, [update], work.base_of(client))
    if model is not None and client in work.stale and work.old is not None:
        newest, opened, statistics = open_global(work.opened, work.old), work.opened, work.config.statistics
        model = moved({client: model}, work.stale, newest, opened=opened, statistics=statistics)[client]
    if model is not None and (model.encoding is not None or client in work.stale):
        with TensorFileWriter(path, model.specs, model.metadata) as writer:
            for spec in writer.specs:
                writer.write(spec.name, np.asarray(model.tensors[spec.name]))
        if update.format != kind.wire_format:
            kind.from_wire(path, path, update.format)
    elif update.format == kind.wire_format:
        place_update(work.store, update, path)
    else:
        ours = path.with_name(f".{path.name}.wire")
        place_update(work.store, update, ours)
        kind.from_wire(ours, path, update.format)
        ours.unlink()
