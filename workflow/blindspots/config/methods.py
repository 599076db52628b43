"""The sections training, attack, noise, amplification and evaluation."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from blindspots.config.types import Count, Device, NonNegative, Positive, Section, Seed, no_truth_value


class Training(Section):
    method: Literal["working_set", "full_batch"]
    decay_convention: Literal["half", "per_unit", "plain"]
    gradient_tolerance: Positive
    max_iterations: Count
    history: Count
    device: Device
    threads: Count


class LBFGSOptions(Section):
    """Options of the paper's procedure, as in `blindspots.attack.penalty`."""

    norm: Literal["l2", "squared_l2"]
    c_tolerance: Annotated[Positive, Field(le=1)]
    c_growth: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    max_searches: Count
    tolerance: Positive
    min_decrease: NonNegative
    window: Count
    looseness: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    max_evaluations: Count
    history: Count


class SQPOptions(Section):
    """Options of the refinement, as in `blindspots.attack.sqp`."""

    exploration: Annotated[int, BeforeValidator(no_truth_value), Field(ge=0)]
    noise: NonNegative
    smoothing: NonNegative
    momentum: Annotated[float, Field(ge=0, lt=1)]
    competitors: Count
    tolerance: Positive
    max_rounds: Count


class Attack(Section):
    target: Literal["random", "nearest", "second", "given"] | Seed
    given_targets: str | None
    sample: Count | Literal["all"]
    correct_only: bool
    seed: Seed
    lbfgs: LBFGSOptions
    sqp: SQPOptions
    margin: NonNegative
    precision: Literal["single", "double"]
    batch: Count
    images_per_job: Count
    device: Device
    threads: Count

    @model_validator(mode="after")
    def _given_targets_when_given(self):
        if (self.target == "given") != (self.given_targets is not None):
            raise ValueError("given_targets names a file exactly when target is given")
        return self

    @model_validator(mode="after")
    def _one_class_for_others_alone(self):
        if isinstance(self.target, int) and not self.correct_only:
            raise ValueError(
                f"target {self.target}: images that are of this class already have to be left out: correct_only"
            )
        return self


class Noise(Section):
    seed: Seed
    clip: bool


class Amplification(Section):
    clip: bool


class Evaluation(Section):
    device: Device
    threads: Count
