"""The workflow's programs, one for each kind of step: each takes arguments and writes one whole artifact."""

import ctypes
import signal
import sys

# On Linux, a program ends when the Snakemake process that started it is killed. Otherwise it would go on
# unwatched beside the programs of the next run. On Ctrl-C, a program ends at once. By default Python would
# first wait for the work of its threads. To end at once is safe, because no file is ever half written. The
# code stands here so that it holds from the first moment: importing torch takes seconds. A process that only
# imports a program, such as the audit, is left alone.
_STARTED = sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv else ""
if _STARTED.startswith(f"{__name__}."):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
