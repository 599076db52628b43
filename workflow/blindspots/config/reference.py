"""The reference of the configuration's keys: python -m blindspots.config.reference

It writes config/schema.json, with which editors check and explain the keys. It also writes the same reference
for people, in config/README.md.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blindspots.config.schema import Config

FOLDER = Path(__file__).parents[3] / "config"
_BEGIN = "<!-- From here on: python -m blindspots.config.reference -->\n"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_WORDS = {"object": "section", "string": "text", "boolean": "true, false"}

Schema = Mapping[str, Any]


def main() -> None:
    """Write both files."""
    schema = json_schema()
    (FOLDER / "schema.json").write_text(written(schema), encoding="utf-8")
    page = FOLDER / "README.md"
    page.write_text(with_reference(page.read_text(encoding="utf-8"), schema), encoding="utf-8")


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration.

    Returns:
        The schema.
    """
    return {"$schema": _DIALECT, **Config.model_json_schema()}


def written(schema: Schema) -> str:
    """Format a schema as the text of its file.

    Args:
        schema: The schema.
    Returns:
        The text.
    """
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def with_reference(page: str, schema: Schema) -> str:
    """Insert the reference of the keys into a page.

    Args:
        page: The page. Everything after its mark is replaced.
        schema: The schema.
    Returns:
        The page with the reference.
    """
    head, mark, _ = page.partition(_BEGIN)
    shown: set[str] = set()
    sections = (_section(name, part, schema, shown) for name, part in schema["properties"].items())
    return head + mark + "\n" + "\n".join(sections)


def _section(name: str, part: Schema, schema: Schema, shown: set[str]) -> str:
    lines = [f"## {name}", "", part["description"], ""]
    rows = [f"| `{key}` | {values} | {meaning} |" for key, values, meaning in _keys("", part, schema, shown)]
    if rows:
        lines += ["| key | values | meaning |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def _keys(prefix: str, part: Schema, schema: Schema, shown: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each key below a part of the schema: its path, its values, and its meaning.

    In a path, `*` stands for any name. `shown` has the titles of the parts whose keys are already on the
    page, such as those of `sources`. They are not repeated.
    """
    alternatives = _alternatives(part, schema)
    for one in alternatives:
        if "properties" in one:
            if one["title"] in shown:
                continue
            shown.add(one["title"])
        kind = one.get("properties", {}).get("kind", {}).get("const")
        place = f"{prefix.rstrip('.')}[{kind}]." if kind and len(alternatives) > 1 else prefix
        for key, value in one.get("properties", {}).items():
            meaning = " ".join(value.get("description", "").split()).replace("|", "\\|")
            yield f"{place}{key}", _values(value, schema), meaning
            yield from _keys(f"{place}{key}.", value, schema, shown)
        for value in (
            one.get("additionalProperties"),
            *one.get("patternProperties", {}).values(),
            one.get("items"),
        ):
            if isinstance(value, Mapping):
                yield from _keys(f"{prefix}*.", value, schema, shown)


def _alternatives(part: Schema, schema: Schema) -> list[Schema]:
    """Return all alternatives for a part, with references resolved."""
    if "$ref" in part:
        return _alternatives(schema["$defs"][part["$ref"].rpartition("/")[2]], schema)
    options = part.get("oneOf") or part.get("anyOf")
    return [found for option in options for found in _alternatives(option, schema)] if options else [part]


def _values(part: Schema, schema: Schema) -> str:
    found = []
    for one in _alternatives(part, schema):
        if "const" in one:
            found.append(str(one["const"]))
        elif "enum" in one:
            found += map(str, one["enum"])
        elif one.get("type") == "array":
            items = one.get("items") or {"anyOf": one.get("prefixItems", [{}])}
            found.append(f"list of {_values(items, schema)}")
        else:
            found.append(_WORDS.get(one.get("type"), one.get("type", "")))
    return ", ".join(dict.fromkeys(filter(None, found)))


if __name__ == "__main__":
    main()
