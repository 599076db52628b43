"""The public functions and classes for minimum-distortion attacks on any torch module.

The workflow's programs import the single modules instead. A code fingerprint does not follow the imports of
this file.
"""

from blindspots.attack.core import Adversarial, minimum_distortion, refine
from blindspots.attack.exact import exact_linear
from blindspots.attack.penalty import LBFGS
from blindspots.attack.sqp import SQP

__all__ = ["LBFGS", "SQP", "Adversarial", "exact_linear", "minimum_distortion", "refine"]
