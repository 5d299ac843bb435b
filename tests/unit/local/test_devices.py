"""Each site of a local run sees the GPUs that it was given, and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flavor.edge.workspace import Workspace
from flavor.errors import InvalidSetting
from flavor.local.devices import ORDER, VISIBLE, SiteDevices, groups_of
from flavor.programs.evaluator_environment import evaluator_environment
from flavor.programs.trainer_environment import trainer_environment

LISTED = """GPU 0: NVIDIA H200 (UUID: GPU-11111111-2222-3333-4444-555555555555)
  MIG 1g.18gb     Device  0: (UUID: MIG-aaaaaaaa-2222-3333-4444-555555555555)
GPU 1: NVIDIA H200 (UUID: GPU-66666666-2222-3333-4444-555555555555)
"""


@pytest.fixture(autouse=True)
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path for an `nvidia-smi`; without one at first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")
    return folder / "nvidia-smi"


def lists(smi: Path, text: str, code: int = 0) -> None:
    smi.with_name("listed").write_text(text)
    smi.write_text(f'#!/bin/sh\n[ "$1" = -L ] && cat "{smi.with_name("listed")}"\nexit {code}\n')
    smi.chmod(0o755)


def seen(text: str, clients: list[str], environment: dict[str, str] | None = None) -> dict[str, str]:
    devices = SiteDevices(text, clients, environment or {})
    return {client: devices.seen(environment or {}, client)[VISIBLE] for client in clients}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,1", {"a": "0", "b": "1", "c": "0"}),
        ("0+1, 2+3", {"a": "0,1", "b": "2,3", "c": "0,1"}),
        ("7", dict.fromkeys("abc", "7")),
        ("GPU-1f,MIG-GPU-2e/1/0", {"a": "GPU-1f", "b": "MIG-GPU-2e/1/0", "c": "GPU-1f"}),
    ],
)
def test_sites_take_the_devices_by_turns(text: str, expected: dict[str, str]) -> None:
    assert seen(text, ["a", "b", "c"]) == expected


def test_numbers_count_within_what_the_environment_shows() -> None:
    assert seen("1,0", ["a", "b"], {VISIBLE: "4,6"}) == {"a": "6", "b": "4"}
    assert seen("0+1", ["a"], {VISIBLE: "GPU-1, GPU-2"}) == {"a": "GPU-1,GPU-2"}
    with pytest.raises(
        InvalidSetting, match="there is no device 2: CUDA_VISIBLE_DEVICES=4,6 shows 2 devices to flavor"
    ):
        seen("0,2", ["a"], {VISIBLE: "4,6"})
    assert seen("GPU-1,GPU-22,MIG-3", ["a"], {VISIBLE: "GPU-11,GPU-2"}) == {"a": "GPU-1"}
    assert seen("GPU-1", ["a"], {VISIBLE: "4"}) == {"a": "GPU-1"}
    for hidden in ("GPU-11,GPU-12", ""):
        with pytest.raises(InvalidSetting, match=f"CUDA_VISIBLE_DEVICES={hidden} does not show GPU-2 to flavor"):
            seen("GPU-1,GPU-2" if hidden else "GPU-2", ["a"], {VISIBLE: hidden})
    for hidden in ("", "-1", "NoDevFiles"):
        with pytest.raises(InvalidSetting, match="shows 0 devices"):
            seen("0", ["a"], {VISIBLE: hidden})


@pytest.mark.parametrize("text", ["", "0,", "0;1", "cuda:0", "-1", "0+", "0+0", "GPU 0", "MIG-", "٣"])
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="--devices"):
        groups_of(text)


def test_a_device_that_nvidia_smi_does_not_list_is_refused_and_nothing_where_it_cannot_be_asked(smi: Path) -> None:
    assert seen("9", ["a"]) == {"a": "9"}
    lists(smi, LISTED)
    assert seen("1+00,MIG-aaaa,GPU-6", ["a"]) == {"a": "1,00"}
    with pytest.raises(InvalidSetting, match=r"there is no device 2 here: nvidia-smi lists 2 devices \(0, 1\)"):
        seen("0,2", ["a"])
    with pytest.raises(InvalidSetting, match="there is no device MIG-b here"):
        seen("MIG-b", ["a"])
    lists(smi, LISTED, code=9)  # no driver
    assert seen("9", ["a"]) == {"a": "9"}


def test_what_is_told() -> None:
    told: list[str] = []
    SiteDevices("0,1+2,5", ["a", "b"], {}).tell(told.append)
    SiteDevices("0,1", [f"edge-{number}" for number in range(9)], {}).tell(told.append)
    SiteDevices("", ["a"], {}).tell(told.append)
    assert told == [
        "GPUs: a on device 0; b on devices 1 and 2",
        "device 5 is used by no site: there are fewer sites",
        "GPUs: 5 sites on device 0; 4 sites on device 1",
    ]


def test_scripts_of_a_site_find_what_its_edge_was_given(tmp_path: Path) -> None:
    """By `flavor run --devices`, and by the variable itself where a site starts `flavor-fl`."""
    files = Workspace.prepare(tmp_path / "w", environment={}, input_path=tmp_path)
    by_run = SiteDevices("0,1", ["a", "b"], {}).seen({"PATH": "/bin"}, "b")
    for edge, order in ((by_run, "PCI_BUS_ID"), ({VISIBLE: "1"}, None)):
        for script in (
            trainer_environment(edge, files, rounds=1, run="r", client="c"),
            evaluator_environment(edge, files, round_=1, rounds=1, run="r", client="c"),
        ):
            assert (script[VISIBLE], script.get(ORDER)) == ("1", order)
