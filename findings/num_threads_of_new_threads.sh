#!/usr/bin/env bash
# After torch.set_num_threads(1) torch.get_num_threads() is 1 in every thread of Python, but OpenMP, and MKL for matrix products,
# still have in a thread that starts later the number of the environment: a product there may be parted among several threads,
# and its last bits are then others than in the main thread. torch.set_num_threads(1) in the new thread itself ends that.
#
# Expected: the number holds for the process, as torch.get_num_threads() tells.
# Seen with torch 2.13.0 and OMP_NUM_THREADS=4 (torch's and OpenMP's number): main thread 1 and 1, a later thread 1 and 4, one that
# sets it again 1 and 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 threadpoolctl==3.6.0
OMP_NUM_THREADS=4 MKL_NUM_THREADS=4 "$folder/venv/bin/python" - <<'PYTHON'
import threading

import torch
from threadpoolctl import threadpool_info

assert torch.__version__.split("+")[0] == "2.13.0"
torch.set_num_threads(1)


def numbers(set_again: bool = False) -> None:
    if set_again:
        torch.set_num_threads(1)
    openmp = {library["num_threads"] for library in threadpool_info() if library["internal_api"] == "openmp"}
    seen.append((torch.get_num_threads(), *openmp))


seen = []
numbers()
for set_again in (False, True):
    thread = threading.Thread(target=numbers, args=(set_again,))
    thread.start()
    thread.join()
print("torch", torch.__version__, "| torch's and OpenMP's threads: main", seen[0], "| later", seen[1], "| set again", seen[2])
assert seen == [(1, 1), (1, 4), (1, 1)]
PYTHON
