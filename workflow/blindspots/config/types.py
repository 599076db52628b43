"""Types of values in the configuration."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def no_truth_value(value: Any) -> Any:
    """Reject true and false as a number. Python counts true as 1, but the configuration does not.

    Args:
        value: The value.
    Returns:
        The same value.
    Raises:
        ValueError: If it is true or false.
    """
    if isinstance(value, bool):
        raise ValueError(f"input should be a number, got {value}")
    return value


Device = Literal["auto", "cpu", "cuda"]
PICTURES = "pictures"
ImageSet = Literal["train", "test", "pictures"]
SHA256 = Annotated[
    str,
    BeforeValidator(lambda given: given.lower() if isinstance(given, str) else given),
    Field(pattern=r"^[0-9a-f]{64}$"),
]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Seed = Annotated[int, BeforeValidator(no_truth_value), Field(ge=0)]
Count = Annotated[int, BeforeValidator(no_truth_value), Field(gt=0)]


class Section(BaseModel):
    """A section of the configuration. Unknown keys are errors, and no value can be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
