"""What a long computation tells of its progress."""

from collections.abc import Callable

Report = Callable[..., None]


def no_report(message: str, *values: object) -> None:
    """The report that nobody reads."""
