"""What the README and the other pages name is there: the files
that they link to, the results that the workflow makes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, copy_code, snakemake

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "config").rglob("*.md")),
]
COMMANDS = re.compile(r"^snakemake .* --directory results/.*$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]+)?\)")
RESULT = re.compile(r"\bresults/(?:figures/)?[\w.{},]+\.(?:csv|h5|html|md|png|zip)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_of_the_project(page):
    links = [path for path in LINK.findall(page.read_text()) if not path.startswith("https://")]
    assert [path for path in links if not (page.parent / path).exists()] == []


def test_the_workflow_makes_all_results_that_are_named(tmp_path):
    named = {name for page in PAGES for name in RESULT.findall(page.read_text())} - {
        "results/report.html"
    }  # --report's
    assert len(named) > 20
    targets = subprocess.run(
        ["bash", "-c", f"echo {' '.join(sorted(named))}"], capture_output=True, text=True, check=True
    )
    planned = snakemake(copy_code(tmp_path / "clone"), "-n", *targets.stdout.split())
    assert planned.returncode == 0, planned.stdout


@pytest.mark.parametrize(
    "command", sorted({found for page in PAGES for found in COMMANDS.findall(page.read_text())})
)
def test_a_run_beside_results_is_planned_as_the_page_has_it(command, tmp_path):
    clone = copy_code(tmp_path / "clone")
    (clone / "own.yaml").write_text("compare_with_paper: false\n")  # the least that a reader may have written
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # as in an activated .venv
    environment = os.environ | {"PATH": path}
    words = ["bash", "-c", f"{command} -n"]
    planned = subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stdout + planned.stderr
