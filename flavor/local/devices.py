"""Which GPUs the scripts of each site of a local run see: a site takes the next group of `--devices` by turns."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence

from flavor.counted import are, counted
from flavor.errors import InvalidSetting

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
_NUMBER = re.compile(r"[0-9]{1,4}")
_NAME = re.compile(r"(GPU|MIG)-[A-Za-z0-9/-]{1,120}")
_TOGETHER = "+"
_MOST_NAMED = 8
_LIST_S = 10.0


def groups_of(text: str) -> tuple[str, ...]:
    """Return the groups that `--devices` lists: `0,1` are two, of one GPU each, and `0+1,2+3` two of two GPUs.

    Raises `InvalidSetting` for anything but numbers and names of GPUs.
    """
    groups = tuple(group.strip() for group in text.split(","))
    for group in groups:
        devices = group.split(_TOGETHER)
        if not all(_NUMBER.fullmatch(device) or _NAME.fullmatch(device) for device in devices):
            raise InvalidSetting(
                f"--devices {text!r}: {group!r} is no GPU: list numbers (0,1), names that `nvidia-smi -L` shows "
                "(GPU-…, MIG-…), or several for each site (0+1,2+3)"
            )
        if len(set(devices)) < len(devices):
            raise InvalidSetting(f"--devices {text!r}: {group!r} names a GPU twice")
    return groups


class SiteDevices:
    """The GPUs of each site of a local run."""

    def __init__(self, listed: str, clients: Sequence[str], environment: Mapping[str, str]) -> None:
        """Give the groups of `--devices` to the clients by turns; none where nothing is `listed`.

        A number is that of `nvidia-smi`, or a place in `CUDA_VISIBLE_DEVICES` where the environment has it. Raises
        `InvalidSetting` for a number or a GPU that is not there.
        """
        groups = groups_of(listed) if listed else ()
        self._groups, self._shown = groups, _shown(environment)
        if groups and self._shown is None:
            _check_there(groups)
        elif wrong := next((each for each in _devices(groups) if each.isdigit() and self._lacks(each)), None):
            raise InvalidSetting(
                f"--devices: there is no device {wrong}: {VISIBLE}={environment[VISIBLE]} shows "
                f"{counted(len(self._shown or ()), 'device')} to flavor, numbered from 0; unset it to use others"
            )
        elif hidden := next((each for each in _devices(groups) if self._hides(each)), None):
            raise InvalidSetting(
                f"--devices: {VISIBLE}={environment[VISIBLE]} does not show {hidden} to flavor; unset it to use others"
            )
        self.of = {client: groups[number % len(groups)] for number, client in enumerate(clients)} if groups else {}
        """The group of each client that has one."""

    def _lacks(self, number: str) -> bool:
        return self._shown is not None and int(number) >= len(self._shown)

    def _hides(self, name: str) -> bool:
        """Whether the environment surely hides it: it shows devices by name, and of the same kind."""
        shown = self._shown or []
        if not name.startswith("GPU-") or not all(each.startswith("GPU-") for each in shown):
            return False
        return not any(each.startswith(name) or name.startswith(each) for each in shown)

    def seen(self, environment: Mapping[str, str], client: str) -> dict[str, str]:
        """Return the environment of this client's edge, whose scripts see its GPUs alone; all, where it has no group.

        CUDA counts GPUs in the order of `nvidia-smi` then, and not the fastest first.
        """
        if client not in self.of:
            return dict(environment)
        devices = self.of[client].split(_TOGETHER)
        if self._shown is None:
            return {ORDER: "PCI_BUS_ID", **environment, VISIBLE: ",".join(devices)}
        return {**environment, VISIBLE: ",".join(self._shown[int(d)] if d.isdigit() else d for d in devices)}

    def tell(self, tell: Callable[[str], None]) -> None:
        """Say which sites train on which GPUs, and which GPUs no site has."""
        for line in (self._told(), self._unused()):
            if line:
                tell(line)

    def _told(self) -> str:
        by_group: dict[str, list[str]] = {}
        for client, group in self.of.items():
            by_group.setdefault(group, []).append(client)
        many = len(self.of) > _MOST_NAMED
        parts = [
            f"{counted(len(clients), 'site') if many else ', '.join(clients)} on {_written(group)}"
            for group, clients in by_group.items()
        ]
        return f"GPUs: {'; '.join(parts)}" if parts else ""

    def _unused(self) -> str:
        left = [group for group in dict.fromkeys(self._groups) if group not in self.of.values()]
        named = ", ".join(_written(group) for group in left)
        return f"{named} {are(len(left))} used by no site: there are fewer sites" if left else ""


def _written(group: str) -> str:
    return f"device{'s' if _TOGETHER in group else ''} {group.replace(_TOGETHER, ' and ')}"


def _devices(groups: Sequence[str]) -> list[str]:
    return [device for group in groups for device in group.split(_TOGETHER)]


def _shown(environment: Mapping[str, str]) -> list[str] | None:
    """Return the devices that CUDA shows to a program of this environment, as CUDA reads it; None for all."""
    text = environment.get(VISIBLE)
    if text is None:
        return None
    found: list[str] = []
    for device in map(str.strip, text.split(",")):
        if not (_NUMBER.fullmatch(device) or _NAME.fullmatch(device)):  # CUDA ignores what follows
            break
        found.append(device)
    return found


def _check_there(groups: Sequence[str]) -> None:
    """Raise `InvalidSetting` for a number or a name that `nvidia-smi` does not list, where there is one that lists any.

    CUDA would hide all devices from the script without a word, and the script would train on the CPU.
    """
    listed = _listed()
    numbers = re.findall(r"^GPU (\d+):", listed, re.MULTILINE)
    names = re.findall(r"\(UUID: ((?:GPU|MIG)-[^)\s]+)\)", listed)
    if not numbers:
        return
    for device in _devices(groups):
        if device.isdigit() and str(int(device)) not in numbers:
            raise InvalidSetting(
                f"--devices: there is no device {device} here: nvidia-smi lists {counted(len(numbers), 'device')} "
                f"({', '.join(numbers[:_MOST_NAMED])}{', …' if len(numbers) > _MOST_NAMED else ''})"
            )
        if not device.isdigit() and "/" not in device and not any(name.startswith(device) for name in names):
            raise InvalidSetting(f"--devices: there is no device {device} here: `nvidia-smi -L` lists the names")


def _listed() -> str:
    """Return what `nvidia-smi -L` prints; '' where it cannot be asked."""
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_LIST_S, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""
