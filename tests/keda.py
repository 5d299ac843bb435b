"""KEDA and the autoscaler of Kubernetes, as a loop: what a ScaledObject makes of the number of pods."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


class Keda:
    """Scales as KEDA and the autoscaler of Kubernetes do, from a ScaledObject; `scale` makes or deletes pods.

    Counts what the triggers name by their own query, reads the formula, and keeps at least one pod while the metric is
    more than `activationTarget`, and until the cooldown is over. It has no stabilization window: the number of pods
    follows each look, which is harder for a pod with a job than the real one.
    """

    def __init__(self, scaled: Mapping[str, Any], count: Callable[[str], int], scale: Callable[[int], None]) -> None:
        self._spec, self._count, self._scale = scaled["spec"], count, scale
        self._modifiers = self._spec["advanced"]["scalingModifiers"]
        self._active_at = -1e9
        self.pods, self.metric = 0, 0.0
        self.seen: list[int] = []
        """The numbers of pods, one after the other."""

    def look(self) -> None:
        """Look once at the queue, and scale."""
        counts = {each["name"]: self._count(each["metadata"]["listName"]) for each in self._spec["triggers"]}
        self.metric = eval(self._modifiers["formula"], {"__builtins__": {}}, counts)
        now, least, most = time.monotonic(), self._spec["minReplicaCount"], self._spec["maxReplicaCount"]
        if self.metric > float(self._modifiers["activationTarget"]):
            self._active_at = now
            wanted = min(most, max(1, least, -int(-self.metric // float(self._modifiers["target"]))))
        else:
            is_cooling = now - self._active_at <= self._spec["cooldownPeriod"]
            wanted = max(least, min(self.pods, 1)) if is_cooling else least
        if wanted != self.pods:
            self.pods = wanted
            self.seen.append(wanted)
            self._scale(wanted)
