"""Fingerprint of the code behind a result.

It is a hash over a program and every project module that the program imports, directly or indirectly. The
hash is computed from the parsed source without docstrings, so comments and formatting do not change it.
Third-party packages that the code imports enter with the version that the lock file pins.
"""

import ast
import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import grimp
from packaging.requirements import Requirement

PACKAGES = ("blindspots", "scripts")
WORKFLOW = Path(__file__).parents[2]
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml"}  # import name -> distribution, where they differ
LOCK = WORKFLOW.parent / "envs" / "constraints.txt"


class Fingerprint(NamedTuple):
    """The fingerprint of a program.

    Attributes:
        sha256: The hash over all modules and pinned versions, in hexadecimal digits.
        modules: The SHA-256 of the parsed source, by module.
        packages: The pinned version, by third-party distribution.
    """

    sha256: str
    modules: dict[str, str]
    packages: dict[str, str]


@cache
def fingerprint(module: str) -> Fingerprint:
    """Compute the fingerprint of a project module.

    Args:
        module: The module's dotted name, such as `scripts.train_network`.
    Returns:
        Its fingerprint.
    Raises:
        KeyError: If there is no such module.
    """
    graph = _import_graph()
    if module not in graph.modules:
        raise KeyError(f"{module} is no module under {WORKFLOW}")
    reached = {module} | graph.find_upstream_modules(module)
    project = {name for name in reached if not graph.is_module_squashed(name)}
    project |= {parent for name in project for parent in _parents(name)}
    modules = {name: _source_hash(name) for name in sorted(project)}
    packages = _pinned(reached - project)
    content = json.dumps([modules, packages], sort_keys=True).encode()
    return Fingerprint(hashlib.sha256(content).hexdigest(), modules, packages)


def normalised(source: str) -> str:
    """Return a source's syntax tree as text, without comments, formatting and docstrings.

    The text is the same in every Python version.

    Args:
        source: The source of a module.
    Returns:
        The syntax tree as JSON.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(
            node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        ) and ast.get_docstring(node):
            node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]
    return json.dumps(_plain(tree))


def _plain(node: Any) -> Any:
    """Turn a syntax tree into lists. Newer Python versions have more empty fields, so these are left out."""
    if isinstance(node, ast.JoinedStr):  # Some versions have empty strings between its values.
        node = ast.JoinedStr(
            [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        )
    if isinstance(node, ast.AST):
        fields = [
            [name, _plain(value)]
            for name, value in ast.iter_fields(node)
            if value is not None and value != []
        ]
        return [type(node).__name__, *fields]
    return [_plain(item) for item in node] if isinstance(node, list) else repr(node)


@cache
def _import_graph() -> grimp.ImportGraph:
    if str(WORKFLOW) not in sys.path:
        sys.path.insert(0, str(WORKFLOW))
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:size]) for size in range(1, len(parts))]


@cache
def _source_hash(module: str) -> str:
    path = WORKFLOW.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return hashlib.sha256(normalised(path.read_text(encoding="utf-8")).encode()).hexdigest()


def _pinned(imports: set[str]) -> dict[str, str]:
    pins, names = _pins(), {DISTRIBUTIONS.get(name, name) for name in imports}
    # grimp only finds the imports, and does not affect a result.
    return {name: pins[name] for name in sorted(names - {"grimp"}) if name in pins}


@cache
def _pins() -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in LOCK.read_text(encoding="utf-8").splitlines())
    return {
        requirement.name.lower(): str(requirement.specifier)
        for requirement in map(Requirement, filter(None, lines))
    }
