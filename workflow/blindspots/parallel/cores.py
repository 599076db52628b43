"""The cores that a process may use, which on a shared machine are fewer than there are."""

import os


def available_cores() -> int:
    """How many cores the system lets this process use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
