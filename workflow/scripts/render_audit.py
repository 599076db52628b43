"""Render a page on which every number of the tables states its origin.

The page is read in a browser and needs no server.
"""

import json
from pathlib import Path

from blindspots.audit import page
from blindspots.audit.records import Run
from blindspots.steps.artifacts import whole_file
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    """Render the page and write it.

    Args:
        step: The run. Its inputs are `provenance`, `data`, `pictures`, `splits`, `images`, `template` and
            `modules`.
    """
    exported = json.loads(step.input("provenance").read_text(encoding="utf-8"))
    finished, splits = Run(Path.cwd(), str(step.input("provenance").parent)), step.input("splits")
    data = {"train": step.input("data"), "test": step.input("data"), "pictures": step.input("pictures")}
    for table in exported["tables"].values():
        for cell in table["cells"]:
            cell["picture"] = page.picture(finished, cell, data, splits)
    modules = page.module_texts(step.inputs["modules"], exported["files"])
    with whole_file(step.output[0]) as temporary:
        template = step.input("template").read_text(encoding="utf-8")
        temporary.write_text(page.render(template, exported, modules), encoding="utf-8")
    log.info("wrote %s: %d modules", step.output[0], len(modules))


def main(argv=None) -> int:
    roles = ("provenance", "data", "pictures", "splits", "images", "template", "modules")
    return run(body, "scripts.render_audit", roles, argv)


if __name__ == "__main__":
    raise SystemExit(main())
