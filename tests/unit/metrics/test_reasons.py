"""Every reason for which an inspection refuses an update has a class."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from flavor.metrics.reasons import ReasonClass, class_of

ROOT = Path(__file__).parents[3]
ERRORS = {"InvalidUpdate", "CheckpointError", "BrokenModel", "UnreadableModel", "InvalidInfo"}
OF_OBJECTS = {"ObjectMissing", "DigestMismatch", "ObjectWithheld", "BadObjectPath"}
LOOKED_AT = {
    **dict.fromkeys(("workers", "flavor/checkpoints", "flavor/records"), ERRORS | OF_OBJECTS),
    "flavor/store": OF_OBJECTS,
}
NO_REFUSALS = {
    "flavor/checkpoints/safetensors/writer.py",  # what this project writes itself
    "flavor/checkpoints/state_dict/nesting.py",  # what a site's own edge reads, and says in its own words
    "flavor/checkpoints/state_dict/structure.py",
    "flavor/checkpoints/convert.py",
    "flavor/store/uploads.py",  # parts of an upload, which no inspection reads
    "flavor/store/s3_requests.py",
    "flavor/store/signed.py",  # what a site reads and writes, which no inspection does
    "workers/reports.py",  # results of evaluations, whose refusals are counted by no metric
    "flavor/records/report_parser.py",
}


def text_of(node: ast.expr) -> str:
    """A message, with a word in place of each value."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ""


def messages() -> Iterator[tuple[str, str]]:
    """Each message with a text of its own, after where it stands."""
    for room, names in LOOKED_AT.items():
        for path in sorted((ROOT / room).rglob("*.py")):
            where = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                is_error = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
                if is_error and node.args and where not in NO_REFUSALS:
                    text = text_of(node.args[0])
                    if text.replace("VALUE", "").strip(": ;"):
                        yield f"{where}:{node.lineno}", text.replace("VALUE", "info.json", "info" in path.stem)


def test_every_refusal_has_a_class() -> None:
    found = list(messages())
    assert len(found) > 80
    assert [(where, text) for where, text in found if class_of(text) is ReasonClass.OTHER] == []


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("late: round 3 no longer takes updates", "late"),
        ('"its trainer ended in round 2 (exit code 3)"', "site"),
        ("its edge refused it, and gave no reason", "site"),
        ("the run does not admit its edge, and told it why", "admission"),
        ("its inspection failed 3 times", "inspection"),
        ("unusable update: KeyError: 'x'", "inspection"),
        ("tensor 'fc.weight' has NaN values: look for NaN in the data, lower the learning rate", "values"),
        ("with this update the new global model, or the server's state, is not finite in 'w'", "values"),
        ("tensor 'a' has NaN, and the global model of this round is not finite there either: no site is", "model"),
        (
            "the global model of this round has NaN or infinite values in tensor 'a', and this update other ones",
            "model",
        ),
        ("with this update the new global model has values in 'w' whose squares have no room in their type", "values"),
        ("tensor 'b' is missing; the global model has it", "structure"),
        ("tensor 'b' has shape (2,); the global model has (3,)", "structure"),
        ("tensor 'b' is float64; the global model has float32", "structure"),
        ("tensor 'c' is not in the global model", "structure"),
        ("datasetSize 900000000 is more than the 1000 that this run allows", "limit"),
        ("the checkpoint has 99 bytes, more than the 10 that this run allows", "limit"),
        ("the update changes the global model by 12 (L2), more than the 5 that this run allows", "limit"),
        ("datasetSize is 3 in its info.json, and 4 was handed in beside it", "info"),
        ("runs/r/a/info.json: metadata.datasetSize is missing", "info"),
        ("object runs/r/a is not what was submitted: its SHA-256 is 0123…", "object"),
        ("object runs/r/a is not in the store /store", "object"),
        ("object path '../x' is refused: parts of letters, digits, '.', '_' and '-', none hidden or '..'", "object"),
        ("object runs/r/a has 12 bytes; 11 were signed", "object"),
        (
            "the update is not signed, and the run knows a key of it: run a flavor-fl that signs, with its --key",
            "signature",
        ),
        ("the update is a difference to a global model, and there is none in this round", "base"),
        ("model.pt: a damaged pickle (x); save the checkpoint again", "checkpoint"),
        ("a sentence of a later release", "other"),
    ],
)
def test_classes(reason: str, kind: str) -> None:
    assert class_of(reason) == kind
