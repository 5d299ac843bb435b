"""How many threads the script of each site of a local run computes with, so that the sites share the cores."""

from __future__ import annotations

import os
from collections.abc import Mapping

from flavor.counted import counted
from flavor.programs.trainer_environment import THREAD_VARIABLES, THREADS


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limited(environment: Mapping[str, str], sites: int, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an edge, which limits the threads of its script.

    Without a limit each script starts a thread for each core, and the threads of all sites wait for each other. There
    is none where the user has set a variable about threads, in `environment` or by `--set` (`settings`).
    """
    threads = _of_each(environment, sites, settings)
    return {**environment, THREADS: str(threads)} if threads else dict(environment)


def told(environment: Mapping[str, str], sites: int, settings: Mapping[str, str]) -> str:
    """Say how many threads each script gets, and how to change that; '' where there is no limit."""
    threads = _of_each(environment, sites, settings)
    if not threads:
        return ""
    return (
        f"each site's script computes with {counted(threads, 'thread')}, because {sites} sites share "
        f"{counted(cores(), 'core')}; --set OMP_NUM_THREADS=N changes that"
    )


def _of_each(environment: Mapping[str, str], sites: int, settings: Mapping[str, str]) -> int:
    is_set = any(environment.get(name) or name in settings for name in THREAD_VARIABLES)
    return 0 if is_set or sites == 1 else max(1, cores() // sites)
