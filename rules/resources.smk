# Needs: the configuration. Makes: what rules say of cores, GPUs, memory and the order of jobs.


# Cores and GPUs limit the jobs of one machine; those of a cluster are its scheduler's affair.
resource_scopes:
    cpu="local",
    gpu="local",


def cpu(wildcards, threads):
    """What a job takes of the machine's cores, however many --cores says (see profiles/default)."""
    return threads


def threads_of(section):
    """The threads of a job: half of Snakemake's cores, so that one job computes while another one starts, but no more than
    pay. On a cluster it is one, unless its profile says otherwise (`set-threads`)."""
    cores = workflow.resource_settings.cores if workflow.is_main_process else None
    return 1 if cores is None else max(1, min(section.threads, min(cores, available_cores()) // 2))


def gpu(section):
    """A job that computes on a GPU has it to itself. With `auto` that is so where this machine has one."""
    return int(section.device == "cuda" or (section.device == "auto" and os.path.exists("/dev/nvidiactl")))


def scaled_by_attempt(amount):
    """A resource that grows when a job is tried again, as it may have been killed for want of it."""
    return lambda wildcards, attempt: amount * attempt


def remaining_multiplications(steps):
    """A priority: the size of a network times the steps that are still ahead (training, attack, refinement). The network with
    the longest way to go starts first."""
    return lambda wildcards: steps * CONFIG.networks[wildcards.network].multiplications(
        CONFIG.data.image_shape
    )
