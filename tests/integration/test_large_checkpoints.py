"""Checkpoints past 2^32 bytes, on little disk and in little memory: sparse files, and tensors that share a storage."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flavor.checkpoints import TensorSpec
from flavor.checkpoints.detection import LEGACY_MAGIC
from flavor.checkpoints.pickles.writer import Bytes, Call, Global, Persistent, dtype_value, emit, tensor_value
from flavor.checkpoints.safetensors.header import plan

F4 = np.dtype(np.float32)
COUNT = 1_500_000_007  # 6 GB of float32, and not a multiple of anything
SIZE = 4 * COUNT
HEAD = io.BytesIO()
np.lib.format.write_array_header_1_0(HEAD, {"descr": "<f4", "fortran_order": False, "shape": (COUNT,)})
FLOATS = Global("torch", "FloatStorage")


class Sparse(io.FileIO):
    """A file in which an integer, instead of bytes, is a hole of that many, with something at both ends of it."""

    def write(self, data: object) -> int:  # type: ignore[override]
        if not isinstance(data, int):
            return super().write(data)  # type: ignore[arg-type]
        super().write(np.float32(1.5).tobytes())
        self.seek(data - 8, io.SEEK_CUR)
        super().write(np.float32(-2.5).tobytes())
        return data


def tensor(storage: object, count: int = COUNT) -> Call:
    """A torch tensor of that many elements over a storage."""
    call = tensor_value(np.empty(0, F4), storage)
    return Call(call.function, (storage, 0, (count,), (1,), *call.arguments[4:]))


def safetensors(file: Sparse) -> None:
    head, _ = plan([TensorSpec("w", F4, (COUNT,))], {}, "x")
    file.write(head)
    file.write(SIZE)


def pickled(file: Sparse) -> None:
    state = (1, (COUNT,), dtype_value(F4), False, Bytes(SIZE, [SIZE]))  # type: ignore[list-item]
    array = Call(Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), 0), state=state)
    emit(file, {"state_dict": {"w": array}})


def legacy(file: Sparse) -> None:
    file.write(b"\x80\x02" + LEGACY_MAGIC)
    for value in (1001, {"protocol_version": 1001, "little_endian": True}):
        emit(file, value, 2)
    emit(file, {"state_dict": {"w": tensor(Persistent(("storage", FLOATS, "0", "cpu", COUNT, None)))}}, 2)
    emit(file, ["0"], 2)
    file.write(struct.pack("<Q", COUNT))
    file.write(SIZE)


def torch_zip(file: Sparse, names: tuple[str, ...] = ("w",), count: int = COUNT) -> None:
    text = io.BytesIO()
    storage = Persistent(("storage", FLOATS, "0", "cpu", count))
    emit(text, {"state_dict": {name: tensor(storage, count) for name in names}}, 2)
    zip64(file, {"a/data.pkl": [text.getvalue()], "a/data/0": [4 * count], "a/version": [b"3\n"]})


def npz(file: Sparse) -> None:
    zip64(file, {"w.npy": [HEAD.getvalue(), SIZE]})


def zip64(file: Sparse, entries: dict[str, list[bytes | int]]) -> None:
    """A zip of stored entries with every size and offset in its 64-bit place (PKWARE APPNOTE 4.3 and 4.5.3)."""
    directory = b""
    for name, parts in entries.items():
        at, size = file.tell(), sum(part if isinstance(part, int) else len(part) for part in parts)
        common = struct.pack("<HHHHHIII", 45, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1)
        file.write(b"PK\3\4" + common + struct.pack("<HH", len(name), 20) + name.encode())
        file.write(struct.pack("<HHQQ", 1, 16, size, size))
        for part in parts:
            file.write(part)
        directory += b"PK\1\2" + struct.pack("<H", 45) + common
        directory += struct.pack("<HHHHHII", len(name), 28, 0, 0, 0, 0, 2**32 - 1) + name.encode()
        directory += struct.pack("<HHQQQ", 1, 24, size, size, at)
    start = file.tell()
    file.write(directory)
    count, end = len(entries), file.tell()
    file.write(b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(directory), start))
    file.write(b"PK\6\7" + struct.pack("<IQI", 0, end, 1))
    file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0))


def run_small(code: str, *arguments: object) -> str:
    """What a fresh process prints that may have 256 MiB of its own; fails when it had 512 MiB with mapped files."""
    code = f"""
import re, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (2**28, 2**28))
import numpy as np
{code}
print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
"""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, peak_kib = done.stdout.splitlines()
    assert int(peak_kib) < 512 * 1024
    return "\n".join(lines)


READ = """
from flavor.checkpoints import describe, detect, read
for path in sys.argv[1:]:
    open("/proc/self/clear_refs", "w").write("5")  # VmHWM begins anew
    try:
        w = read(path).tensors["w"]
        told = f'{detect(path)} {w.shape} {w.dtype} {describe(path)["w"][1]} {w[0]} {w[2**30 + 7]} {w[-1]}'
    except Exception as error:
        told = repr(error)
    print(told, int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) < 512 * 1024)
    w = None
"""
FORMATS = {"safetensors": safetensors, "torch": torch_zip, "legacy torch": legacy, "pickle": pickled, "npz": npz}


def test_six_gigabytes_are_read_in_every_format(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, write in FORMATS.items():
        with Sparse(tmp_path / name, "w") as file:
            write(file)
        on_disk = (tmp_path / name).stat()
        assert on_disk.st_size > 6e9
        assert on_disk.st_blocks * 512 < 2**20
    read = run_small(READ, *(tmp_path / name for name in FORMATS)).splitlines()
    for name, line in zip(FORMATS, read, strict=True):
        with subtests.test(name):
            assert line == f"{name.removeprefix('legacy ')} ({COUNT},) float32 ({COUNT},) 1.5 0.0 -2.5 True"


TIED = tuple(f"layer{number}" for number in range(54))
EACH = 20_000_000
"""54 tensors of 80 MB are more than 2^32 bytes; that they share one storage spares the page cache, and is told nowhere
below."""

CONVERT = """
from flavor.checkpoints import to_safetensors
class Sink:
    size = 0
    def write(self, data):
        self.size += len(data)
sink = Sink()
info = to_safetensors(sys.argv[1], sink)
print(info.size_bytes == sink.size, sink.size > 2**32, len(info.names), len(info.sha256))
"""


def test_four_gigabytes_are_converted_as_a_stream(tmp_path: Path) -> None:
    with Sparse(tmp_path / "model", "w") as file:
        torch_zip(file, TIED, EACH)
    assert run_small(CONVERT, tmp_path / "model") == "True True 54 64"


AGGREGATE = """
import mmap, threading
from aggregators import run
from flavor.checkpoints import read
models = [read(path).tensors for path in sys.argv[1:]]
room = -(-next(iter(models[0].values())).nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
names = list(models[0])
result = mmap.mmap(-1, 2 * room)  # fresh memory for each tensor would take as long as all the rest
out = {name: np.ndarray(models[0][name].shape, np.float32, result, at % 2 * room) for at, name in enumerate(names)}
right, turn = [], threading.Condition()
def completed(name):
    with turn:  # one after the other: of two threads none begins a tensor before the last but one was looked at
        assert turn.wait_for(lambda: names[len(right)] == name, 60)
        ends = out[name][[0, 1, -1]].tolist()
        out[name][[0, 1, -1]] = 7  # as long as nothing is written there
        right.append(ends == [1.5, 0, -2.5])
        turn.notify_all()
run(models, [1, 3], out=out, completed=completed, threads=2)
print(len(right), all(right), sum(tensor.nbytes for tensor in out.values()))
"""


def test_four_gigabytes_are_aggregated(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Sparse(tmp_path / name, "w") as file:
            torch_zip(file, TIED, EACH)
    assert run_small(AGGREGATE, tmp_path / "a", tmp_path / "b") == f"54 True {54 * 4 * EACH}"


def test_the_holes_are_where_they_seem(tmp_path: Path) -> None:
    with Sparse(tmp_path / "x", "w") as file:
        file.write(b"abc")
        file.write(16)
    assert re.fullmatch(rb"abc\0\0\xc0\x3f\0{8}\0\0\x20\xc0", (tmp_path / "x").read_bytes())
