"""The workflow's programs, one for each kind of step: arguments in, one whole artifact out."""

import ctypes
import signal
import sys

# On Linux a program ends when the Snakemake that started it is killed, so that none goes on unwatched beside the next
# run's. This stands here to hold from the first moment: importing torch takes seconds.
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
