"""What a user's aggregator finds: the clients' models as files in the trainers' own format, and all information."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flavor.checkpoints import Format, TensorFileWriter, from_safetensors
from flavor.checkpoints.format import ANY_EXTENSION
from flavor.programs.aggregator_files import RoundFiles
from flavor.records.update import Update
from workers.combiner import Work
from workers.updates import open_updates, place_update


def laid_out(work: Work, folder: Path) -> RoundFiles:
    """Write the contributors' models below `folder` as their trainers saved them, and all information."""
    has_tensors = work.config.kind.has_tensors
    files = RoundFiles.below(
        folder, work.infos, extension=Format(work.format).extension if has_tensors else ANY_EXTENSION
    )
    for index, info in enumerate(work.infos.values()):
        files.write_local_info(index, info)
    files.write_global_info(work.info)
    for update, path in zip(work.updates.values(), files.local_models, strict=True):
        if has_tensors:
            _lay_out_tensors(work, update, path)
        else:
            place_update(work.store, update, path)
    work.opened.finish()  # while the command works, a site may change its object
    return files


def _lay_out_tensors(work: Work, update: Update, path: Path) -> None:
    (model,) = open_updates(work.opened, [update], work.old)
    if model.encoding is None and update.format == Format.SAFETENSORS:
        place_update(work.store, update, path)
    elif model.encoding is None:
        ours = path.with_name(f".{path.name}.wire")
        place_update(work.store, update, ours)
        from_safetensors(ours, path, Format(update.format))
        ours.unlink()
    else:
        with TensorFileWriter(path, model.specs, model.metadata) as writer:
            for spec in writer.specs:
                writer.write(spec.name, np.asarray(model.tensors[spec.name]))
        if update.format != Format.SAFETENSORS:
            from_safetensors(path, path, Format(update.format))
