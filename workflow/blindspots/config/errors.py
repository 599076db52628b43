"""Error messages for a wrong configuration, in one line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class ConfigError(Exception):
    """The configuration is wrong. The message is one line with the key."""


def check_known(key: str, name: str, names) -> None:
    """Check that a name is one of those that exist.

    Args:
        key: The key in the configuration, for the message.
        name: The name.
        names: The names that exist.
    Raises:
        ValueError: If the name is not one of them.
    """
    if name not in names:
        raise ValueError(f"{key}: {name!r} is not known; there are {', '.join(names)}")


def check_unique(key: str, names: Sequence[str]) -> None:
    """Check that no name is repeated.

    Args:
        key: The key in the configuration, for the message.
        names: The names.
    Raises:
        ValueError: If a name is there more than once.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{key}: {', '.join(repeated)} stands there more than once")


def error_line(problem: Mapping[str, Any], raw: Any) -> str:
    """Describe an error of Pydantic in one line.

    Args:
        problem: The error, as Pydantic's `errors` returns it.
        raw: The configuration before the check.
    Returns:
        The line, which begins with the key in the configuration's file.
    """
    key = ".".join(_path_in_file(problem["loc"], raw, missing=problem["type"] == "missing"))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "union_tag_invalid":
        context = problem["ctx"]
        key, message = f"{key}.kind", f"there are {context['expected_tags']}, got {context['tag']!r}"
    elif problem["type"] == "extra_forbidden":
        message = "unknown key"
    elif problem["type"] == "string_type" and isinstance(problem["input"], bool):
        message = f"YAML takes this for {str(problem['input']).lower()}: quote it to make it a name"
    elif problem["type"] not in ("missing", "value_error"):
        message = f"{message[:1].lower()}{message[1:]}, got {problem['input']!r}"
    return f"{key}: {message}" if key else message


def _path_in_file(location: Sequence[str | int], value: Any, missing: bool) -> Iterator[str]:
    """Yield the parts of a location, without the alternatives of a union that Pydantic adds to it."""
    for place, part in enumerate(location, start=1):
        if isinstance(value, Mapping):
            if part in value or (missing and place == len(location)):
                yield str(part)
                value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            yield str(part)
            value = value[part] if part < len(value) else None
