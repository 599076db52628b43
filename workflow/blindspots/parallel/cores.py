"""The number of CPU cores that a process may use.

On a shared machine it can be smaller than the number of cores of the machine.
"""

import os


def available_cores() -> int:
    """Count the cores that the system lets this process use.

    Returns:
        The number of cores in the affinity mask of the process. Where the system has no affinity masks, it
        is the number of cores of the machine, or 1 if that is unknown.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
