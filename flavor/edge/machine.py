"""How busy the machine of a site is: CPU and memory by psutil, and NVIDIA's GPUs if nvidia-ml-py is installed."""

from __future__ import annotations

import contextlib
from typing import Any

from flavor.records.pulse import Gpus, Load


class Machine:
    """The machine that this process runs on. What cannot be measured is left out.

    Imports its libraries when it is made, so make it late: an edge starts without them.
    """

    def __init__(self) -> None:
        import psutil  # type: ignore[import-untyped,unused-ignore]

        self._psutil = psutil
        self._psutil.cpu_percent()  # what is measured is the time between two calls
        self._nvml = _nvml()

    def load(self) -> Load:
        """Return how busy the machine was since the last call. Raises what psutil raises."""
        memory = self._psutil.virtual_memory()
        gpus = None
        if self._nvml is not None:
            with contextlib.suppress(Exception):  # a driver that is gone, or a GPU that tells nothing
                gpus = _gpus(self._nvml)
        return Load(self._psutil.cpu_percent(), memory.total - memory.available, memory.total, gpus)


def _nvml() -> Any:
    """The library of nvidia-smi, ready for use; None where there is none."""
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        pynvml.nvmlInit()
    except Exception:  # the module, the library, the driver or the right to use it is missing
        return None
    return pynvml


def _gpus(nvml: Any) -> Gpus | None:
    devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if not devices:
        return None
    memory = [nvml.nvmlDeviceGetMemoryInfo(device) for device in devices]
    busy = [nvml.nvmlDeviceGetUtilizationRates(device).gpu for device in devices]
    return Gpus(
        len(devices), sum(busy) / len(busy), sum(each.used for each in memory), sum(each.total for each in memory)
    )
