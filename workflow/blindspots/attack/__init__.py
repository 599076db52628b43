"""Minimum-distortion attacks on any torch module: the library's face.

Programs of the workflow import the modules themselves, as a fingerprint does not follow what a package's file imports.
"""

from blindspots.attack.core import Adversarial, minimum_distortion, refine
from blindspots.attack.exact import exact_linear
from blindspots.attack.penalty import LBFGS
from blindspots.attack.sqp import SQP

__all__ = ["LBFGS", "SQP", "Adversarial", "exact_linear", "minimum_distortion", "refine"]
