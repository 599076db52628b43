# Needs: the run's folder. Makes: sure that one Snakemake alone works in it, and that results can be written.


def refuse_unsafe_folder():
    """Refuse to run where results cannot be written, or beside another run: each would delete what the other makes.

    When its holder ends, even by a kill, the system frees this lock, so that there is nothing to unlock.
    """
    folder = os.getcwd()
    if os.path.exists("results") and not os.access("results", os.W_OK):
        sys.exit(f"Error: {folder}/results cannot be written: allow it, or choose another --directory")
    if "cpu" not in workflow.global_resources:  # of profiles/default
        print(
            "Warning: Snakemake has not read this workflow's profile, which limits jobs to the machine's cores, but that of the "
            f"folder that it was started in: add --workflow-profile {PROJECT}/profiles/default",
            file=sys.stderr,
        )
    held = os.open(".snakemake", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
    except BlockingIOError:
        sys.exit(
            f"Error: another Snakemake is at work in {folder}: wait for it, or choose another --directory"
        )
    except OSError as error:
        print(
            f"Warning: {folder} has no locks ({error.strerror}): start one Snakemake at a time there",
            file=sys.stderr,
        )


def refuse_forgotten_results():
    """Refuse to take files for up to date whose settings Snakemake does not remember, as when only results/ was copied.

    Input functions of tables call it, since Snakemake runs no `onstart` where it finds nothing to do.
    """
    if workflow.dryrun or not workflow.is_main_process:
        return
    remembered = any(any(Path(".snakemake", kind).glob("*")) for kind in ("metadata", "incomplete"))
    if not remembered and any(Path("results").glob("*.h5")):
        sys.exit(
            f"Error: {os.getcwd()}/.snakemake/metadata is empty, so that results/ would count as up to date, whatever it was made "
            "with: copy .snakemake along with results/, or move results/ away (python -m blindspots.audit checks it as it is)"
        )
