# Needs: the run's folder. Makes: sure that one Snakemake alone works in it, and that results can be written.


def refuse_unsafe_folder():
    """Refuse to run where results cannot be written, or beside another run: each would delete what the other makes.

    When its holder ends, even by a kill, the system frees this lock, so that there is nothing to unlock.
    """
    folder = os.getcwd()
    if os.path.exists("results") and not os.access("results", os.W_OK):
        sys.exit(f"Error: {folder}/results cannot be written: allow it, or choose another --directory")
    if os.path.isdir("profiles/default") and not os.path.samefile(".", PROJECT):
        print(
            f"Warning: Snakemake reads {folder}/profiles/default instead of this workflow's, which limits jobs to the machine's "
            f"cores: add --workflow-profile {PROJECT}/profiles/default",
            file=sys.stderr,
        )
    held = os.open(".snakemake", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
    except BlockingIOError:
        sys.exit(f"Error: another Snakemake is at work in {folder}: wait for it, or choose another --directory")
    except OSError as error:
        print(f"Warning: {folder} has no locks ({error.strerror}): start one Snakemake at a time there", file=sys.stderr)
