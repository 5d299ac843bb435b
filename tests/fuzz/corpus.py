"""Seeds: what real libraries write, and a few things that nobody should."""

from __future__ import annotations

import functools
import io
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from targets import COUNTING_INFO, GOOD_INFO, bench

from flavor.checkpoints import Checkpoint, Format, read, to_safetensors, write
from tests.fuzz.folder_target import GOOD_EVALUATION
from tests.fuzz.proxy_target import GOOD_ANSWERS
from tests.fuzz.report_target import GOOD_REPORT
from tests.fuzz.token_target import GOOD_TOKEN
from tests.fuzz.wish_target import GOOD_ANSWER, GOOD_WISH
from tests.infos import png

_NOT_FINITE_INFO = {
    "metadata": {**GOOD_INFO["metadata"], "notFinite": '{"a":"NaN","b":[]}'},
    "metrics": {**GOOD_INFO["metrics"], "a": None, "b": None},
}


@functools.cache
def seeds() -> dict[str, list[bytes]]:
    """For each target, inputs that it accepts."""
    torch_zip, torch_legacy, pickles, npz = _torch(False), _torch(True), _pickles(), _npz()
    wire = _wire([*torch_zip, *pickles, *npz])
    structures = [metadata["flavor.structure"].encode() for metadata in map(_metadata, wire) if metadata]
    return {
        "proxy_answer": [*GOOD_ANSWERS],
        "info": [
            json.dumps(GOOD_INFO).encode(),
            json.dumps(COUNTING_INFO).encode(),
            json.dumps(_NOT_FINITE_INFO).encode(),
            b'{"metadata":{"epoch":1e9,"datasetSize":0,"importance":-1}}',
            b"[NaN]",
        ],
        "report": [
            json.dumps(GOOD_REPORT).encode(),
            b'{"metadata":{"datasetSize":1},"results":{}}',
            b'{"metadata":{"datasetSize":0},"results":{"tables":[{"title":"","labels":["a"],"values":[NaN]}]}}',
        ],
        "evaluation": [
            GOOD_EVALUATION.to_json().encode(),
            b'{"select":"acc:max","round":2,"value":0.5,"sites":1}',
            b'{"sites":{"a":{}},"merged":{},"missing":{"b":"why"}}',
        ],
        "shard_index": [
            b'{"metadata":{"total_size":8},"weight_map":{"w":"model-00001-of-00002.safetensors","b":"model.safetensors"}}',
            b'{"weight_map":{"w":"a.safetensors"}}',
        ],
        "server_file": [
            b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n",
            b"REDIS0011\xfe\x00\x00\x01k\x01v\x04\x01h\x01\x01f\x01v\xff" + bytes(8),
            b"REDIS0011\xfe\x00\x00\x01k\x01v\xff" + bytes(8) + b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n",
        ],
        "image": [
            png(2, 3),
            b"\xff\xd8\xff\xe0\x00\x04\x00\x00\xff\xc0\x00\x0b\x08\x00\x03\x00\x02\x01\x01\x11\x00\xff\xd9",
        ],
        "update": [
            b"",
            b"\x00" + bench().update[0].encode() + b"\x00\x01" + bench().update[1].encode(),
            b"\x00runs/r/clients/b/0002-u.safetensors\x00\x03torch\x00\x02123456789",
            b"\x04" + bench().info["info_path"].encode() + b"\x00\x06" + bench().info["num_examples"].encode(),
        ],
        "pulse": [
            b'{"done": 30, "total": 100, "message": "m", "metrics": {"loss": 0.3}, "round": 1}',
            b"[37.5, 3221225472, 8589934592, 2, 90.0, 1073741824, 137438953472]",
            b'training\x001\x001\x00{"done": 1e300, "total": 1e-300}\x00[1, 2, 3]',
        ],
        "relayed": [
            b'{"call": "set", "event": "TrainFinished", "round": 3, "timeout_s": null, "asker": {"host": "gpu-7", '
            b'"job": "12", "restarts": ""}}',
            b'{"call": "wait_started", "event": null, "round": 3, "timeout_s": 0.5, "asker": {"host": "", "job": "", '
            b'"restarts": ""}}',
            b'{"value": 3}',
            b'{"error": "LeaseLost", "text": "gone"}',
            b'{"error": "RunOver", "run": "r", "state": "failed", "reason": "no quorum"}',
        ],
        "measured": [
            b'[["downloading",1000],["training",1500],["uploaded",1500]]\x00[4096,8192]',
            b'{"judged_ms":5,"phases":[["training",3]],"moved":[1,2],"metrics":{"loss":0.3}}',
            b'{"closed_ms":9,"round":1,"opened_ms":2,"expected":2,"metrics":{"loss":0.3},"spread":{"loss":[0.1,0.5]}}',
        ],
        "token": [GOOD_TOKEN.model_dump_json().encode()],
        "wish": [GOOD_WISH.to_text().encode(), GOOD_ANSWER.to_text().encode()],
        "path": [
            bench().update[0].encode(),
            b"runs/r/../../outside/secret",
            b"/etc/passwd",
            b"runs/r/x",
            b"a//b",
            b"~/x",
        ],
        "request": [
            b"GET\n/api/runs/mammo\n\nlocalhost\n\n\n\n\ngzip",
            b"GET\n/api/stream\nrun=mammo&last=x\nlocalhost:8600\n\nBearer a-token-of-the-fuzzer\n0a0b0c0d-1-2-3",
            b"POST\n/login\n\n[::1]\n\n\n\n\n\ntoken=a-token-of-the-fuzzer&next=%2Frun%2Fmammo",
            b"GET\n/run/mammo\ntoken=a-token-of-the-fuzzer&x=%22%3E\nevil.example\nflavor_00000000=1.x",
            b"GET\n/api/runs/mammo/events\nbefore=1-2&kind=a,b&most=3\nlocalhost",
            b'HEAD\n/static/0000000000000000/login.js\n\nlocalhost\n\n\n\n"x", W/"y"\ngzip;q=0',
        ],
        "channel": [
            b"flavor:{r}:client:site-1:round:3:update",
            b"flavor:{r}:client:a:state",
            b"flavor:{a.b-c}:client:x",
            b"flavor:{r}:client::",
            b"123",
        ],
        "safetensors": wire,
        "structure": [*structures, b'{"root":{"d":[["a",{"t":"a"}],[1,{"u":[{"c":null},{"t":"b","as":"int"}]}]]}}'],
        "checkpoint": [*torch_zip, *torch_legacy, *pickles, *npz, *wire],
        "torch": [*torch_zip, *torch_legacy],
        "pickle": pickles,
        "npz": npz,
    }


def write_corpus(folder: Path, target: str) -> None:
    """One file for each seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds()[target]):
        (folder / f"seed-{number}").write_bytes(content)


def dictionary(folder: Path) -> Path:
    """Tokens of the formats, for a fuzzer that cannot guess them."""
    tokens = [
        *("state_dict", "data.pkl", "data/0", "version", "byteorder", ".npy", "__metadata__", "flavor.structure"),
        *(
            "dtype",
            "shape",
            "data_offsets",
            "F32",
            "BF16",
            "I64",
            "BOOL",
            "metadata",
            "metrics",
            "datasetSize",
            "epoch",
        ),
        *(
            "importance",
            "basic/confusion_tp",
            "count/binary/positives",
            "count/x.moments",
            "count/x.same",
            "storage",
            "cpu",
            "torch",
            "FloatStorage",
            "LongStorage",
        ),
        *("torch._utils\\x0a_rebuild_tensor_v2\\x0a", "collections\\x0aOrderedDict\\x0a", "numpy\\x0adtype\\x0a"),
        *(
            "numpy._core.multiarray\\x0a_reconstruct\\x0a",
            "_codecs\\x0aencode\\x0a",
            "torch.storage\\x0a_load_from_bytes",
        ),
        *("\\x93NUMPY\\x01\\x00", "PK\\x03\\x04", "PK\\x01\\x02", "PK\\x05\\x06", "\\x80\\x02", "\\x80\\x04\\x95"),
        *("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", "NaN", "Infinity", "1e999", "-1", "null"),
    ]
    path = folder / "tokens.dict"
    path.write_text("".join('"{}"\n'.format(token.replace('"', '\\"')) for token in tokens))
    return path


def _state():
    import torch

    return OrderedDict(
        w=torch.arange(6, dtype=torch.float32).reshape(2, 3),
        half=torch.ones(3).half(),
        b=torch.ones(2, dtype=torch.bfloat16),
        n=torch.tensor(3),
        t=torch.arange(6.0).reshape(2, 3).t(),
    )


def _torch(legacy: bool) -> list[bytes]:
    import torch

    state = _state()
    files = []
    for value in ({"state_dict": state}, {"state_dict": {"a": [state["w"], (state["n"], 1.5)], "s": "x"}, "epoch": 3}):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=not legacy)
        files.append(file.getvalue())
    return files


def _pickles() -> list[bytes]:
    arrays = {name: tensor.float().numpy() for name, tensor in _state().items()}
    nested = {"state_dict": {"layers": [arrays, {"k": np.float64(2)}], 3: True}, "other": object}
    values = [pickle.dumps({"state_dict": arrays}, protocol) for protocol in (0, 2, 4, 5)]
    return [*values, pickle.dumps(nested), pickle.dumps({"state_dict": dict(_state())})]


def _npz() -> list[bytes]:
    arrays = {f"state_dict/{name}": tensor.float().numpy() for name, tensor in _state().items()}
    files = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays)
        files.append(file.getvalue())
    return files


def _wire(others: list[bytes]) -> list[bytes]:
    from safetensors.numpy import save

    files = [save({"w": np.ones((2, 3), np.float32), "n": np.arange(3)}, metadata={"format": "pt"})]
    with TemporaryDirectory() as folder:
        for content in others:
            (Path(folder) / "in").write_bytes(content)
            to_safetensors(Path(folder) / "in", Path(folder) / "out")
            files.append((Path(folder) / "out").read_bytes())
        write(Path(folder) / "empty", Checkpoint({"e": np.zeros((0, 3), np.float32)}), Format.SAFETENSORS)
        files.append((Path(folder) / "empty").read_bytes())
    return files


def _metadata(content: bytes) -> dict[str, str]:
    length = int.from_bytes(content[:8], "little")
    table: dict[str, dict[str, str]] = json.loads(content[8 : 8 + length])
    return {key: value for key, value in table.get("__metadata__", {}).items() if key == "flavor.structure"}


__all__ = ["dictionary", "read", "seeds", "write_corpus"]
