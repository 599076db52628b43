"""Blind spots of neural networks: minimum-distortion adversarial examples and what they say about the networks.

The science of Szegedy et al., *Intriguing properties of neural networks* (2013), as functions on arrays and tensors.
Nothing here knows of the workflow engine or of its configuration's place on disk.
"""

import os
import sys
from contextlib import suppress

# `python -m blindspots.audit` puts the folder that it is started in first on the path: that of a run, in which a random.py
# may lie.
if "-m" in sys.orig_argv and sys.orig_argv[sys.orig_argv.index("-m") + 1].startswith(f"{__name__}."):
    with suppress(ValueError):
        sys.path.remove(os.getcwd())
