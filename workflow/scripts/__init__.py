"""The workflow's programs, one for each kind of step: arguments in, one whole artifact out."""

import ctypes
import signal
import sys

# On Linux a program ends when the Snakemake that started it is killed, so that none goes on unwatched beside the next
# run's. This stands here to hold from the first moment: importing torch takes seconds. What only imports a program, as the
# audit does, is left alone.
_STARTED = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv else ""
if sys.platform == "linux" and _STARTED.startswith(f"{__name__}."):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
