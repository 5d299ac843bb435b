"""The inputs of a user's aggregator: the clients' models as files in the trainers' format, and all information."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flavor.checkpoints import TensorFileWriter
from flavor.programs.aggregator_files import RoundFiles
from flavor.records.update import Update
from workers.combiner import Work
from workers.updates import open_updates, place_update


def laid_out(work: Work, folder: Path) -> RoundFiles:
    """Write the contributors' models below `folder` as their trainers saved them, and all information."""
    files = RoundFiles.below(folder, work.infos, extension=work.config.kind.extension(work.format))
    for index, info in enumerate(work.infos.values()):
        files.write_local_info(index, info)
    files.write_global_info(work.info)
    for update, path in zip(work.updates.values(), files.local_models, strict=True):
        _lay_out(work, update, path)
    work.opened.finish()  # a site may change its object while the command works
    return files


def _lay_out(work: Work, update: Update, path: Path) -> None:
    kind, model = work.config.kind, None
    if kind.has_tensors:
        (model,) = open_updates(work.opened, [update], work.old)
    if model is not None and model.encoding is not None:
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
