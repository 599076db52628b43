"""The workflow's programs, one for each kind of step: arguments in, one whole artifact out."""

import ctypes
import signal
import sys

# On Linux a program ends when the Snakemake that started it is killed, so that none goes on unwatched beside the next
# run's. On Ctrl-C it ends at once, too: Python would first wait for what its threads compute, and no file is ever half
# written. This stands here to hold from the first moment: importing torch takes seconds. What only imports a program, as
# the audit does, is left alone.
_STARTED = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv else ""
if _STARTED.startswith(f"{__name__}."):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
