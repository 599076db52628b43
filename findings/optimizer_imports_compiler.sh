#!/usr/bin/env bash
# Making a torch.optim.Adam, whatever its options, imports torch's compiler: a second or more before the first step of a program
# that compiles nothing. The function behind it, torch.optim.adam.adam, makes the same step without.
#
# Expected: an optimizer needs no compiler that nobody asks for.
# Seen with torch 2.13.0 (whether torch._dynamo is imported): after import torch.optim False, after a step of the function
# False, after Adam([parameter]) True; both steps give the same bits
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import torch.optim
from torch.optim.adam import adam

assert torch.__version__.split("+")[0] == "2.13.0"
seen = ["torch._dynamo" in sys.modules]
values, gradient = torch.linspace(-1, 1, 50), torch.linspace(2, 3, 50)
ours = values.clone()
mean, square, step = torch.zeros(50), torch.zeros(50), torch.zeros(())
options = {"amsgrad": False, "beta1": 0.9, "beta2": 0.999, "lr": 0.1, "weight_decay": 0.0, "eps": 1e-8, "maximize": False}
with torch.no_grad():
    adam([ours], [gradient], [mean], [square], [], [step], fused=True, foreach=False, **options)
seen.append("torch._dynamo" in sys.modules)
parameter = torch.nn.Parameter(values.clone())
optimizer = torch.optim.Adam([parameter], lr=0.1, fused=True)
parameter.grad = gradient.clone()
optimizer.step()
seen.append("torch._dynamo" in sys.modules)
print("torch", torch.__version__, "| torch._dynamo imported: at first, by the function, by the class", *seen)
assert seen == [False, False, True]
assert torch.equal(ours, parameter.detach())
PYTHON
