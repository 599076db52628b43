"""Progress reports of long computations."""

from collections.abc import Callable

Report = Callable[..., None]


def no_report(message: str, *values: object) -> None:
    """Discard a progress report.

    Args:
        message: The message, a format string.
        values: The values for the message.
    """
