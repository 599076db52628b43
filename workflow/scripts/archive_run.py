"""Pack the run into an archive for deposition, an RO-Crate.

It holds the tables, the figures, their provenance, the configuration and the project.
"""

import json

from blindspots.audit import ro_crate
from blindspots.steps.artifacts import whole_file
from blindspots.steps.fingerprint import WORKFLOW
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    """Write the archive.

    Args:
        step: The run. Its input is `results`, the files of the run. Its settings are `project` (the project's
            files and their SHA-256) and `config` (the configuration).
    """
    files = {path.as_posix(): path.read_bytes() for path in step.inputs["results"]}
    files |= {name: (WORKFLOW.parent / name).read_bytes() for name in step.settings["project"]}
    files[ro_crate.CONFIGURATION] = (json.dumps(step.settings["config"], indent=1) + "\n").encode()
    with whole_file(step.output[0]) as temporary:
        ro_crate.write(temporary, ro_crate.described(files))
    log.info("wrote %s: %d files", step.output[0], len(files))


def main(argv=None) -> int:
    return run(body, "scripts.archive_run", ("results",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
