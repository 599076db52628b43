"""What is wrong with a configuration, in one line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class ConfigError(Exception):
    """The configuration is wrong; the message is one line that names the key."""


def check_known(key: str, name: str, names) -> None:
    if name not in names:
        raise ValueError(f"{key}: {name!r} is not known; there are {', '.join(names)}")


def check_unique(key: str, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{key}: {', '.join(repeated)} stands there more than once")


def error_line(problem: Mapping[str, Any], raw: Any) -> str:
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
    """The location without what Pydantic adds to it, the alternatives of a union that it tried."""
    for place, part in enumerate(location, start=1):
        if isinstance(value, Mapping):
            if part in value or (missing and place == len(location)):
                yield str(part)
                value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            yield str(part)
            value = value[part] if part < len(value) else None
