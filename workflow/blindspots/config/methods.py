"""The sections `training`, `attack`, `noise`, `amplification` and `evaluation` of the configuration."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from blindspots.config.types import Count, Device, NonNegative, Positive, Section, Seed, no_truth_value


class Training(Section):
    """The training of networks by L-BFGS."""

    method: Literal["working_set", "full_batch"]
    """working_set: most iterations on the images that still matter. full_batch: every iteration on \
all images."""
    decay_convention: Literal["half", "per_unit", "plain"]
    """half: λ Σw²/2, which reproduces the paper's softmax rows. per_unit: λ Σw²/k, as printed. \
plain: λ Σw²."""
    gradient_tolerance: Positive
    """Converged means that no component of the gradient over all images is larger."""
    max_iterations: Count
    """Iterations of L-BFGS at most, those on few images included."""
    history: Count
    """Pairs of a step and its change of the gradient that L-BFGS keeps."""
    device: Device
    """auto takes CUDA where there is a device."""
    threads: Count
    """Cores of a job, at most. No result depends on it."""


class LBFGSOptions(Section):
    """Options of the paper's procedure, as in `blindspots.attack.penalty`."""

    norm: Literal["l2", "squared_l2"]
    """l2: c‖r‖, as the paper prints it. squared_l2: c‖r‖², as public implementations have it."""
    c_tolerance: Annotated[Positive, Field(le=1)]
    """The line search over c ends when c is known to this fraction."""
    c_growth: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    """The factor by which c grows or shrinks until it is bracketed."""
    max_searches: Count
    """Values of c that are tried, at most."""
    tolerance: Positive
    """The projected gradient relative to the penalty's at which a minimisation ends."""
    min_decrease: NonNegative
    """A minimisation also ends if `window` evaluations lower the objective by no more than this fraction \
of c‖r‖."""
    window: Count
    """Evaluations over which this decrease is measured."""
    looseness: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    """How many times larger both tolerances are while c is known less well than c_tolerance."""
    max_evaluations: Count
    """Gradients at each c, at most."""
    history: Count
    """Pairs that L-BFGS keeps."""


class SQPOptions(Section):
    """Options of the refinement, as in `blindspots.attack.sqp`."""

    exploration: Annotated[int, BeforeValidator(no_truth_value), Field(ge=0)]
    """Small averaged steps where the quadratic steps do not converge, as in networks with kinks."""
    noise: NonNegative
    """The length of their first noise, in multiples of the distance."""
    smoothing: NonNegative
    """The width of the softened maximum over competing classes at first, in logits. Many classes need \
some."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """How much of the average gradient such a step keeps. Deep networks need more."""
    competitors: Count
    """Competing classes that are linearised at a time."""
    tolerance: Positive
    """The quadratic step, relative to the distortion, at which an example is a minimum."""
    max_rounds: Count
    """Rounds of quadratic steps and exploration, at most."""


class Attack(Section):
    """The search for the nearest adversarial examples."""

    target: Literal["random", "nearest", "second", "given"] | Seed
    """random, second (the second most likely class), nearest (of all classes), given, or one class for all \
images that are
    not of it."""
    given_targets: str | None
    """With `target: given`, a text file with one class a line for each image of the set. A relative path \
starts at the run's
    folder."""
    sample: Count | Literal["all"]
    """How many images are drawn at random, or all."""
    correct_only: bool
    """Whether images that the network misclassifies are left out."""
    seed: Seed
    """The seed of the random targets and of the sample."""
    lbfgs: LBFGSOptions
    """Options of the paper's procedure."""
    sqp: SQPOptions
    """Options of the refinement, which moves on to a local minimum of the distortion under f(x + r) = l."""
    margin: NonNegative
    """Logits by which the target must lead, so that rounding does not undo a success."""
    precision: Literal["single", "double"]
    """double: the same examples on every device. single: faster."""
    batch: Count
    """Images that a thread works on together. A GPU takes as many as its free memory holds."""
    images_per_job: Count
    """Images of a shard, each of which is a job of its own."""
    device: Device
    """auto takes CUDA where there is a device."""
    threads: Count
    """Cores of a job, at most. No result depends on it."""

    @model_validator(mode="after")
    def _given_targets_when_given(self):
        if (self.target == "given") != (self.given_targets is not None):
            raise ValueError("given_targets names a file exactly when target is given")
        return self

    @model_validator(mode="after")
    def _one_class_for_others_alone(self):
        if isinstance(self.target, int) and not self.correct_only:
            raise ValueError(
                f"target {self.target}: images that are of this class already have to be left out: "
                "correct_only"
            )
        return self


class Noise(Section):
    """Gaussian noise, for comparison with adversarial examples."""

    seed: Seed
    """The seed of the noise."""
    clip: bool
    """Whether noisy images are cut to [0, 1]."""


class Amplification(Section):
    """The amplification of distortions to one standard deviation."""

    clip: bool
    """Whether amplified images are cut to [0, 1]."""


class Evaluation(Section):
    """The classification of images by networks."""

    device: Device
    """auto takes CUDA where there is a device."""
    threads: Count
    """Cores of a job, at most. No result depends on it."""
