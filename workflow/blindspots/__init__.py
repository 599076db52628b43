"""Blind spots of neural networks: minimum-distortion adversarial examples and what they show about networks.

The package has the methods of Szegedy et al., *Intriguing properties of neural networks* (2013).
They are functions on arrays and tensors.
No method depends on the workflow engine or on where its configuration lies on disk.
"""

import os
import sys
from contextlib import suppress

# `python -m blindspots.audit` puts the current folder first on the import path.
# That is the folder of a run, which may contain a file such as random.py.
if "-m" in sys.orig_argv and sys.orig_argv[sys.orig_argv.index("-m") + 1].startswith(f"{__name__}."):
    with suppress(ValueError):
        sys.path.remove(os.getcwd())
