"""What code made a result: comments and formatting change
nothing, what the code does and imports changes it."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from blindspots.steps.fingerprint import DISTRIBUTIONS, LOCK, WORKFLOW, _plain, fingerprint, normalised

SOURCE = '''"""Module."""
import math  # why

LIMIT = 3


class Shape:
    """A shape."""

    def area(self, r):
        """The area."""
        return math.pi * r**2 + LIMIT


async def later():
    """Later."""
    text = """no docstring"""
    return text
'''

comments = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20)


@given(comment=comments, place=st.integers(0, SOURCE.count("\n")))
def test_comment_lines_change_nothing(comment, place):
    lines = SOURCE.split("\n")
    assert normalised("\n".join([*lines[:place], f"# {comment}", *lines[place:]])) == normalised(SOURCE)


@given(blank=st.integers(1, 4))
def test_blank_lines_change_nothing(blank):
    assert normalised(SOURCE.replace("\n\n", "\n" * (blank + 1))) == normalised(SOURCE)


def test_formatting_changes_nothing():
    one = "x = f(1, 'a', key=[1, 2])\nif x: y = 0.00001\n"
    other = 'x = f(\n    1,\n    "a",\n    key=[1, 2,],\n)\nif (x):\n  y = 1e-5\n'
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize("doc", ["Module.", "A shape.", "The area.", "Later."])
def test_another_docstring_changes_nothing(doc):
    assert normalised(SOURCE.replace(doc, "Something else.")) == normalised(SOURCE)


@pytest.mark.parametrize(
    "doc", ['"""Module."""\n', '    """A shape."""\n', '        """The area."""\n', '    """Later."""\n']
)
def test_a_removed_docstring_changes_nothing(doc):
    assert doc in SOURCE
    assert normalised(SOURCE.replace(doc, "")) == normalised(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("r**2", "r**3"),
        ("+ LIMIT", "- LIMIT"),
        ("no docstring", "other"),
        ("async def", "def"),
    ],
)
def test_a_change_of_what_the_code_does_is_seen(old, new):
    assert old in SOURCE
    assert normalised(SOURCE.replace(old, new)) != normalised(SOURCE)


@given(
    one=st.one_of(st.integers(), st.floats(allow_nan=False), st.text()),
    other=st.one_of(st.integers(), st.floats()),
)
def test_a_changed_constant_is_seen(one, other):
    same = type(one) is type(other) and repr(one) == repr(other)
    assert (normalised(f"a = {one!r}") == normalised(f"a = {other!r}")) == same or "inf" in repr(one) + repr(
        other
    )


def test_normalised_code_is_the_same_in_every_version_of_python():
    # The hash was computed alike by Python 3.11 and 3.12, whose syntax trees and `ast.unparse` differ.
    source = """def f(x: int = 1, *y, z=None) -> str:
    'docstring'
    match x:
        case [1, *rest]:
            return f"{x!r:>{y}} it's {'a'}" 'b'
    class A(dict): pass
"""
    assert (
        hashlib.sha256(normalised(source).encode()).hexdigest()
        == "9e2ae357af376f27a9469c67f3efcada0597d23e0fce36384927bfd394066b64"
    )


def test_empty_texts_that_some_versions_put_into_strings_make_no_difference():
    tree = ast.parse('f"{x:{y}} it is"')
    plain = _plain(tree)
    assert "it is" in str(plain)
    for node in [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]:
        node.values.append(ast.Constant(""))
    assert _plain(tree) == plain


# The project's own programs


def test_training_enters_what_train_imports_and_not_the_attack():
    modules = fingerprint("scripts.train_network").modules
    assert {
        "scripts.train_network",
        "blindspots.training.convergence",
        "blindspots.networks.architectures",
        "blindspots.steps.artifacts",
    } <= set(modules)
    assert "blindspots.attack.core" not in modules
    assert "blindspots.solvers.box_lbfgs" not in modules
    assert "scripts.attack_network" not in modules


def test_indirect_imports_enter():
    assert (
        "blindspots.solvers.box_lbfgs" in fingerprint("scripts.attack_network").modules
    )  # through blindspots.attack.core


def test_package_files_enter():
    assert {"blindspots", "scripts"} <= set(fingerprint("scripts.train_network").modules)


def test_pinned_packages_enter_for_the_programs_that_use_them():
    pins = dict(line.split("==") for line in LOCK.read_text().split())
    for name in ("torch", "scipy", "numpy"):
        assert fingerprint("scripts.train_network").packages[name] == f"=={pins[name]}"
    assert "matplotlib" not in fingerprint("scripts.train_network").packages


def test_noise_needs_no_torch():
    assert "torch" not in fingerprint("scripts.add_noise").packages


def test_a_module_that_does_not_exist_is_an_error():
    with pytest.raises(KeyError, match=r"scripts\.nothing"):
        fingerprint("scripts.nothing")


def test_every_program_has_its_own_fingerprint():
    programs = [path.stem for path in (WORKFLOW / "scripts").glob("*.py") if path.stem != "__init__"]
    assert len({fingerprint(f"scripts.{name}").sha256 for name in programs}) == len(programs)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def test_every_third_party_import_has_a_pin_of_its_name():
    # One without a pin would not enter any fingerprint, and its upgrade would go unnoticed.
    pins = {line.split("==")[0] for line in LOCK.read_text().split()}
    modules = {name.split(".")[0] for path in WORKFLOW.rglob("*.py") for name in imported(path)}
    assert {"torch", "numpy", *DISTRIBUTIONS} <= modules
    names = {DISTRIBUTIONS.get(name, name) for name in modules}
    assert names - set(sys.stdlib_module_names) - {"blindspots", "scripts"} - pins == set()


# A changed copy of the project

CHANGES = {
    "comment": (
        "workflow/blindspots/training/full_batch.py",
        "import numpy as np\n",
        "# a comment\nimport numpy as np\n",
    ),
    "training": ("workflow/blindspots/training/full_batch.py", '"maxcor": history', '"maxcor": history + 1'),
    "shared": ("workflow/blindspots/steps/artifacts.py", '".tmp"', '".temporary"'),
    "upgrade": ("envs/constraints.txt", "scipy==", "scipy==9"),
    "new import": (
        "workflow/blindspots/training/full_batch.py",
        "import numpy as np\n",
        "import numpy as np\nfrom blindspots.data import idx\n",
    ),
}
PROGRAMS = ("scripts.train_network", "scripts.plot_training")


def fingerprints(root):
    code = "import json; from blindspots.steps.fingerprint import fingerprint as f; "
    code += f"print(json.dumps({{name: f(name).sha256 for name in {PROGRAMS!r}}}))"
    environment = os.environ | {"PYTHONPATH": str(root / "workflow"), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Copies a fresh project each time it is called, and the fingerprints of an unchanged one."""

    def copy():
        place = tmp_path_factory.mktemp("project")
        for name in ("blindspots", "scripts"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / "workflow" / name, place / "workflow" / name, ignore=ignored)
        shutil.copytree(ROOT / "envs", place / "envs")
        return place

    return copy, fingerprints(copy())


@pytest.mark.parametrize(
    ("change", "seen_by"),
    [
        ("comment", set()),
        ("training", {"scripts.train_network"}),
        ("shared", set(PROGRAMS)),
        ("upgrade", {"scripts.train_network"}),
        ("new import", {"scripts.train_network"}),
    ],
)
def test_a_change_is_seen_by_the_programs_that_reach_it_and_by_no_other(copied, change, seen_by):
    copy, before = copied
    place = copy()
    name, old, new = CHANGES[change]
    source = (place / name).read_text()
    assert old in source
    (place / name).write_text(source.replace(old, new))
    after = fingerprints(place)
    assert {program for program in PROGRAMS if after[program] != before[program]} == seen_by


def test_the_fingerprint_does_not_depend_on_where_the_project_lies(copied):
    _, before = copied
    assert before == {program: fingerprint(program).sha256 for program in PROGRAMS}


def test_module_hashes_are_those_of_the_normalised_source():
    source = normalised((WORKFLOW / "blindspots" / "training" / "convergence.py").read_text())
    recorded = fingerprint("scripts.train_network").modules["blindspots.training.convergence"]
    assert recorded == hashlib.sha256(source.encode()).hexdigest()
