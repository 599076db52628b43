# Needs: config. Makes: CONFIG, the checked configuration, and VARIANTS of it; the settings and the inputs that the rules
# name.
#
# A variant is the experiment with something changed: other seeds (`replicates`) or one other choice (`ablations`). Its
# artifacts lie in folders of its name, but where nothing that they come from is changed, they are the experiment's own.

import fcntl
import json
import os
import re
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import yaml

WORKFLOW = str(PROJECT / "workflow")
PAGE = Path(WORKFLOW, "report", "audit.html.j2")
sys.path.insert(0, WORKFLOW)

from blindspots.config.schema import ABLATIONS, PICTURES, BaselineTable, ConfigError, MethodsTable, Pretrained, SpectralTable
from blindspots.config.schema import TransferTable, check_written, merged, validated, variants
from blindspots.parallel.cores import available_cores
from blindspots.steps.fingerprint import fingerprint
from blindspots.steps.shards import collapsed
from snakemake.exceptions import WorkflowError

# Jobs run the programs beside this Snakefile with the interpreter that runs Snakemake.
os.environ.update(
    PYTHONPATH=os.pathsep.join(filter(None, [WORKFLOW, os.getenv("PYTHONPATH")])),
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.getenv("PATH", os.defpath)]),
)

# As a module, the workflow may have been given no more than what differs.
CONFIGURATION = merged(yaml.safe_load((PROJECT / "config/config.yaml").read_text()), config)

try:
    for path in workflow.configfiles if Path(workflow.main_snakefile).resolve().parent == PROJECT.resolve() else []:
        check_written(Path(path))
    CONFIG = validated(CONFIGURATION)
    VARIANTS = {"": CONFIG} | {f"{name}/": variant for name, variant in variants(CONFIGURATION).items()}
except ConfigError as error:
    sys.exit(f"Error in the configuration: {error}")
for given in {CONFIG.attack_on(images).given_targets for images in ("test", PICTURES)} - {None}:
    if not Path(given).is_file():
        sys.exit(f"Error in the configuration: attack.given_targets: {given} is no file in {Path.cwd()}")

BASELINE_TABLES = [name for name, table in CONFIG.tables.items() if isinstance(table, BaselineTable)]
TRANSFER_TABLES = [name for name, table in CONFIG.tables.items() if isinstance(table, TransferTable)]
SPECTRAL_TABLES = [name for name, table in CONFIG.tables.items() if isinstance(table, SpectralTable)]
METHODS_TABLES = [name for name, table in CONFIG.tables.items() if isinstance(table, MethodsTable)]
LINEAR_NETWORKS = [name for name, network in CONFIG.networks.items() if network.linear]
PRETRAINED_NETWORKS = [name for name, network in CONFIG.networks.items() if isinstance(network, Pretrained)]
TRAINED_NETWORKS = [name for name in CONFIG.networks if name not in PRETRAINED_NETWORKS]
PERTURBED_NETWORKS = [name for name in TRAINED_NETWORKS if CONFIG.networks[name].training().get("perturbed")]
AUTOENCODERS = [name for name in TRAINED_NETWORKS if CONFIG.networks[name].training().get("pretraining")]
# Every table's name, tables before figures, whatever the order of the configuration's keys, on which no result depends; and
# of the figures of Section 3 what each is of.
TABLES = sorted(
    [*CONFIG.tables, *(["units"] if CONFIG.units.of else [])], key=lambda name: (not name.startswith("table"), name)
)
UNITS_FIGURES = {
    figure: (name, kind)
    for name, section in CONFIG.units.of.items()
    for figure, kind in zip(section.figures, ("units", "directions"))
}
# Those that a table has, of which the training is drawn.
DRAWN_NETWORKS = [
    network
    for network in sorted(TRAINED_NETWORKS)
    if any(network in table.networks for name, table in CONFIG.tables.items() if name not in METHODS_TABLES)
]

# What of the project an archive has. Tests and benchmarks are there because the README and docs speak of them.
ARCHIVED_FILES = ("CITATION.cff", "LICENSE", "Makefile", "README.md", "Snakefile", "pyproject.toml")
ARCHIVED_FOLDERS = ("benchmarks", "config", "docs", "envs", "profiles", "rules", "tests", "workflow")
MADE = r"(^|/)(\.|__pycache__/|[^/]+\.egg-info/)"


def any_of(names):
    """A wildcard constraint; without names it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


# Cores and GPUs limit the jobs of one machine; those of a cluster are its scheduler's affair.
resource_scopes:
    cpu="local",
    gpu="local",


wildcard_constraints:
    variant="|".join(map(re.escape, VARIANTS)),
    network="|".join(CONFIG.networks),
    images="train|test|pictures",
    examples="adversarial|refined",
    shard=r"\d+-of-\d+",
    section=any_of(CONFIG.units.of),
    stddev=r"[0-9.]+(e-[0-9]+)?",


def cpu(wildcards, threads):
    """What a job takes of the machine's cores, however many --cores says (see profiles/default)."""
    return threads


def threads_of(section):
    """The threads of a stage's jobs: of the cores given to Snakemake half, so that one job computes while another one starts, but
    no more than pay. On a cluster one, where its profile says nothing else (`set-threads`)."""
    cores = workflow.resource_settings.cores if workflow.is_main_process else None
    return 1 if cores is None else max(1, min(section.threads, min(cores, available_cores()) // 2))


def gpu(section):
    """A stage that computes on a GPU has it to itself; with `auto` that is so where this machine has one."""
    return int(section.device == "cuda" or (section.device == "auto" and os.path.exists("/dev/nvidiactl")))


def grows(amount):
    """A resource that grows when a job is tried again, as it may have been killed for want of it."""

    def at(wildcards, attempt):
        return amount * attempt

    return at


def start():
    """Refuse to run where results cannot be written, or beside another run: each would delete what the other makes.

    Whenever its holder ends, even by a kill, the system frees this lock, so that there is nothing to unlock.
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


# --- Where artifacts lie ---


def config_of(wildcards):
    return VARIANTS[wildcards.variant]


def table_of(wildcards):
    return config_of(wildcards).tables[wildcards.table]


def folder(variant, depends_on):
    """Where a variant has artifacts: with the first one for which all that they depend on, in its configuration, is the
    same."""
    return next(name for name, config in VARIANTS.items() if depends_on(config) == depends_on(VARIANTS[variant]))


def weights(config, name):
    """What a network's weights depend on."""
    network = config.networks[name]
    if isinstance(network, Pretrained):
        return [network]
    of_training = config.training.model_dump(include=training_keys(network))
    return [network.definition(), network.training(), config.data, config.splits, of_training]


def training_keys(network):
    """The keys of `training` that a network's weights depend on: those of L-BFGS change nothing in minibatches."""
    keys = {"decay_convention", "device"}
    return keys if in_minibatches(network) else keys | {"method", "gradient_tolerance", "max_iterations", "history"}


def in_minibatches(network):
    return bool(network.training().get("minibatches"))


def originals(config, images):
    """What a set of images, and which of them are distorted, depends on."""
    return [config.pictures if images == PICTURES else config.data, config.attack_on(images)]


def distorted(config, name, images):
    """What a network's examples depend on."""
    return [*weights(config, name), *originals(config, images), config.attack_against(name, images)]


def data_artifact(images):
    return "results/pictures.h5" if images == PICTURES else "results/data.h5"


def network_artifact(variant, name):
    return f"results/networks/{folder(variant, lambda config: weights(config, name))}{name}.h5"


def examples_artifact(kind, images, variant, name):
    """A network's examples without their images, gathered from the shards."""
    place = folder(variant, lambda config: distorted(config, name, images))
    return f"results/{kind}/{images}/{place}{name}.h5"


def noise_artifact(images, variant, stddev):
    return f"results/noise/{images}/{folder(variant, lambda config: [*originals(config, images), config.noise])}{stddev}.h5"


def amplified_artifact(examples, images, variant, name, stddev):
    def depends_on(config):
        return [*distorted(config, name, images), config.amplification]

    return f"results/amplified/{examples}/{images}/{folder(variant, depends_on)}{name}_{stddev}.h5"


def replicates(variant, table):
    """The variants that a variant's table is taken over: for the experiment itself all of its seeds, if it trains at all."""
    trains = any(name in TRAINED_NETWORKS for name in table.networks)
    others = list(CONFIG.replicated())[: CONFIG.trainings(table) - 1]
    return [variant, *(f"{name}/" for name in others)] if variant == "" and trains else [variant]


def row_artifact(table, variant, row):
    """The artifact of a row of a transfer table without its images."""
    images = table.distorted
    if row.network is None:
        return noise_artifact(images, variant, row.stddev)
    if row.stddev is None:
        return examples_artifact(table.examples, images, variant, row.network)
    return amplified_artifact(table.examples, images, variant, row.network, row.stddev)


def shards(artifact, variant, images):
    """The shards with the images of a gathered artifact."""
    count = VARIANTS[variant].shards(images)
    return [f"{artifact.removesuffix('.h5')}/{number}-of-{count}.h5" for number in range(1, count + 1)]


# --- Inputs ---


def distorted_data(wildcards):
    return data_artifact(wildcards.images)


def given_targets(wildcards):
    path = config_of(wildcards).attack_on(wildcards.images).given_targets
    return [local(path)] if path else []  # where its owner has it, whatever prefix a module's results have


def attacked_network(wildcards):
    return network_artifact(wildcards.variant, wildcards.network)


def amplified_shard(wildcards):
    examples = examples_artifact(wildcards.examples, wildcards.images, wildcards.variant, wildcards.network)
    return f"{examples.removesuffix('.h5')}/{wildcards.shard}.h5"


def in_a_command(role):
    """A parameter: the files of an input, with one word for many shards, as a command holds 128 KiB at most."""

    def words(wildcards, input):
        return collapsed(input[role])

    return words


def gathered_shards(wildcards):
    artifact = "results/{kind}/{images}/{variant}{name}.h5".format(**wildcards)
    return shards(artifact, wildcards.variant, wildcards.images)


def evaluated_networks(wildcards):
    return [network_artifact(wildcards.variant, name) for name in table_of(wildcards).networks]


def rows_shards(table, variant):
    """The shards of each row of a transfer table."""
    return {row.name: shards(row_artifact(table, variant, row), variant, table.distorted) for row in table.rows()}


def evaluated_shards(wildcards):
    return [shard for row in rows_shards(table_of(wildcards), wildcards.variant).values() for shard in row]


def evaluations(wildcards):
    variants = replicates(wildcards.variant, table_of(wildcards))
    return [f"results/evaluation/{variant}{wildcards.table}.h5" for variant in variants]


def measured_rows(table):
    """The rows of a transfer table whose distortions it tells."""
    return [row for row in table.rows() if table.average_distortion or (row.network and row.stddev is None)]


def tables_rows(wildcards):
    table = table_of(wildcards)
    rows = measured_rows(table)
    return [row_artifact(table, variant, row) for variant in replicates(wildcards.variant, table) for row in rows]


def tables_examples(kind, names=None):
    """An input function: the examples of a kind for a table's networks, of each replicate."""

    def artifacts(wildcards):
        table = table_of(wildcards)
        return [
            examples_artifact(kind, table.distorted, variant, name)
            for variant in replicates(wildcards.variant, table)
            for name in table.networks
            if names is None or name in names
        ]

    return artifacts


def tables_networks(wildcards):
    table = table_of(wildcards)
    return [network_artifact(variant, name) for variant in replicates(wildcards.variant, table) for name in table.networks]


def spectra_artifact(table, variant, name):
    examples = examples_artifact(table.examples, table.distorted, variant, name)
    return examples.replace("results/", "results/spectra/", 1)


def spectral_shards(wildcards):
    artifact = examples_artifact(wildcards.examples, wildcards.images, wildcards.variant, wildcards.network)
    return shards(artifact, wildcards.variant, wildcards.images)


def tables_spectra(wildcards):
    table = table_of(wildcards)
    return [spectra_artifact(table, wildcards.variant, name) for name in table.networks]


def inspected_data(wildcards):
    return data_artifact(CONFIG.units.of[wildcards.section].images)


def inspected_network(wildcards):
    return network_artifact("", CONFIG.units.of[wildcards.section].network)


def figures_data(wildcards):
    name, _ = UNITS_FIGURES[wildcards.figure]
    return data_artifact(CONFIG.units.of[name].images)


def figures_units(wildcards):
    name, _ = UNITS_FIGURES[wildcards.figure]
    return f"results/units/{name}.h5"


def papers_file(table):
    return PROJECT / "config/paper" / f"{table}.csv"


# The project's own files are parameters and no inputs: from a moved run, or another clone, they have other paths and times,
# which change nothing. Their hashes are among the settings. (Snakemake compares no parameter that depends on `input`.)


def papers_numbers(wildcards, input):
    """The paper's numbers of a table, where it has that table."""
    path = papers_file(wildcards.table)
    return [os.path.relpath(path)] if path.exists() else []


def figures_rows(wildcards):
    """The unamplified rows and the last noise of a transfer table, for the figure."""
    rows = CONFIG.tables[wildcards.table].rows()
    noise = [row for row in rows if row.network is None]
    return [row for row in rows if row.network and row.stddev is None] + noise[-1:]


def pictured_data(wildcards):
    return data_artifact(CONFIG.tables[wildcards.table].distorted)


def pictured_rows(wildcards):
    table = CONFIG.tables[wildcards.table]
    return [row_artifact(table, "", row) for row in figures_rows(wildcards)]


def pictured_shards(wildcards):
    """Each row's, one row after another: all of photographs, but the first of others, of which there are thousands."""
    images = CONFIG.tables[wildcards.table].distorted
    count = None if images == "pictures" else 1
    return [shard for artifact in pictured_rows(wildcards) for shard in shards(artifact, "", images)[:count]]


def tabled_artifacts(wildcards):
    """The artifacts that the tables are made from; the records of these lead to all others."""
    kinds = [tables_examples("adversarial"), tables_examples("refined"), tables_examples("exact", LINEAR_NETWORKS)]
    found = {}
    for name in sorted(CONFIG.tables):
        of_table = SimpleNamespace(table=name, variant="")
        if name in SPECTRAL_TABLES:
            inputs = [tables_spectra]
        elif name in METHODS_TABLES:
            inputs = [evaluations, tables_networks]
        else:
            inputs = [evaluations, tables_networks, *(kinds if name in BASELINE_TABLES else [tables_rows])]
        found |= {path: None for artifacts in inputs for path in artifacts(of_table)}
    return [*found, *(f"results/units/{name}.h5" for name in sorted(CONFIG.units.of))]


def tabled_shards(wildcards):
    """The images behind the tables' rates and distortions, of the first seeds."""
    found = {}
    for name, table in sorted(CONFIG.tables.items()):
        if name in SPECTRAL_TABLES + METHODS_TABLES:
            continue
        if name in BASELINE_TABLES:
            linear = [network for network in table.networks if network in LINEAR_NETWORKS]
            kinds = {"adversarial": table.networks, "refined": table.networks, "exact": linear}
            artifacts = [examples_artifact(kind, table.distorted, "", one) for kind in kinds for one in kinds[kind]]
        else:
            artifacts = [row_artifact(table, "", row) for row in table.rows()]
        found |= {path: None for artifact in artifacts for path in shards(artifact, "", table.distorted)}
    return list(found)


def module_files():
    """The source files of the programs that make artifacts, under whatever names a module has their rules."""
    makers = [rule.shellcmd for rule in workflow.rules if any(output.endswith(".h5") for output in rule.output)]
    programs = {found[1] for shellcmd in makers if (found := re.match(r"exec python -P -m (scripts\.\w+) ", shellcmd or ""))}
    modules = sorted({module for program in programs for module in fingerprint(program).modules})
    places = [Path(WORKFLOW, *module.split(".")) for module in modules]
    return [place / "__init__.py" if place.is_dir() else place.with_suffix(".py") for place in places]


def shown_modules(wildcards, input):
    return [os.path.relpath(path) for path in module_files()]


def pages_template(wildcards, input):
    return os.path.relpath(PAGE)


def ablated_cells(wildcards):
    ablations = CONFIG.ablations
    return [f"results/{ABLATIONS}/{name}/{table}.cells.csv" for name in ablations.names() for table in ablations.tables]


# --- Settings ---


def settings(program, **named):
    """The one parameter of a rule: its named settings and the fingerprint of the code that it runs, as JSON."""
    named["code"] = fingerprint(f"scripts.{program}").sha256
    return json.dumps(named, sort_keys=True)


def plain(section, *left_out):
    return section.model_dump(mode="json", exclude={"device", "threads", *left_out})


def machine(section):
    """Where a stage runs. It can change the last bits of a result, so it is a setting; the number of threads changes none."""
    return {"device": section.device}


def sources_of(section):
    """Where the files may come from. Snakemake compares no function of the resources with the last run's, and need not:
    the files' SHA-256 are among the settings, so that a source changes nothing."""

    def sources(wildcards, resources):
        return json.dumps({"sources": plain(section(wildcards))["sources"]})

    return sources


# Functions, though they have no wildcards: in a plain parameter Snakemake would take the {8} of a pattern for one.


def fetch_settings(wildcards):
    return settings("fetch", **plain(CONFIG.data, "sources"))


def fetch_pictures_settings(wildcards):
    return settings("fetch_pictures", **plain(CONFIG.pictures, "sources", "attack"))


def configuration(wildcards):
    return json.dumps(CONFIGURATION)


def load_settings(wildcards):
    network = CONFIG.networks[wildcards.network]
    shape = CONFIG.pictures.image_shape
    return settings("load", network=network.definition(), weights=plain(network.weights), image_shape=shape)


def train_settings(program):
    def of(wildcards):
        config = config_of(wildcards)
        network = config.networks[wildcards.network]
        return settings(
            program,
            network=network.definition(),
            **network.training(),
            training=config.training.model_dump(mode="json", include=training_keys(network) - {"device"}),
            **machine(config.training),
        )

    return of


def training_threads(wildcards):
    """One minibatch comes after the other; many images at once have parts."""
    return 1 if in_minibatches(CONFIG.networks[wildcards.network]) else threads_of(CONFIG.training)


def work(stages):
    """The size of a network times the stages that it still has to go through (training, attack, refinement): what has the
    longest way to go starts first."""

    def ahead(wildcards):
        return stages * CONFIG.networks[wildcards.network].multiplications(CONFIG.data.image_shape)

    return ahead


def perturbed_work(wildcards):
    network = CONFIG.networks[wildcards.network]
    return work(3)(wildcards) * network.perturbed.passes(CONFIG.data.train_size) * network.minibatches.epochs


def attack_of(wildcards):
    return config_of(wildcards).attack_against(wildcards.network, wildcards.images)


def shard_settings(wildcards):
    """Which images a job distorts, the same for every network and for noise."""
    attack = config_of(wildcards).attack_on(wildcards.images)
    return {
        "images": wildcards.images,
        "sample": {"size": attack.sample, "seed": attack.seed},
        "shard": wildcards.shard,
    }


def search_settings(wildcards):
    attack = attack_of(wildcards)
    return {"margin": attack.margin, "precision": attack.precision, "batch": attack.batch, **machine(attack)}


def attack_settings(wildcards):
    attack = attack_of(wildcards)
    return settings(
        "attack",
        **shard_settings(wildcards),
        classes=(CONFIG.pictures if wildcards.images == PICTURES else CONFIG.data).classes,
        target=attack.target,
        correct_only=attack.correct_only,
        seed=attack.seed,
        lbfgs=plain(attack.lbfgs),
        **search_settings(wildcards),
    )


def refine_settings(wildcards):
    sqp = plain(attack_of(wildcards).sqp)
    return settings("refine", images=wildcards.images, sqp=sqp, **search_settings(wildcards))


def exact_settings(wildcards):
    attack = attack_of(wildcards)
    return settings("exact", images=wildcards.images, margin=attack.margin, **machine(attack))


def amplify_settings(wildcards):
    clip = config_of(wildcards).amplification.clip
    return settings("amplify", images=wildcards.images, stddev=float(wildcards.stddev), clip=clip)


def noise_settings(wildcards):
    noise = config_of(wildcards).noise
    return settings("noise", **shard_settings(wildcards), stddev=float(wildcards.stddev), **plain(noise))


def evaluate_originals_settings(wildcards):
    table = table_of(wildcards)
    return settings("evaluate_originals", rows=table.errors_on, columns=table.networks, **machine(CONFIG.evaluation))


def evaluate_distorted_settings(wildcards):
    table = table_of(wildcards)
    rows = rows_shards(table, wildcards.variant)
    return settings(
        "evaluate_distorted",
        rows=[{"name": name, "shards": len(paths)} for name, paths in rows.items()],
        columns=table.networks,
        **machine(CONFIG.evaluation),
    )


def papers_hash(table):
    return sha256(path.read_bytes()).hexdigest() if (path := papers_file(table)).exists() else None


def table_settings(wildcards):
    """What tables of both kinds are made by."""
    config, table = config_of(wildcards), table_of(wildcards)
    attack = config.attack_on(table.distorted)
    return {
        "table": wildcards.table,
        "replicates": len(replicates(wildcards.variant, table)),
        "columns": table.networks,
        "comparable": config.compare_with_paper,
        "paper": papers_hash(wildcards.table),
        "attack": {"target": attack.target, "norm": attack.lbfgs.norm, "sample": attack.sample, "set": table.distorted},
    }


def baseline_settings(wildcards):
    table = table_of(wildcards)
    config, attacked = config_of(wildcards), table.distorted
    return settings(
        "tabulate_baseline",
        **table_settings(wildcards),
        linear=[name for name in table.networks if name in LINEAR_NETWORKS],
        errors_on=table.errors_on,
        refined_to={name: config.attack_against(name, attacked).sqp.tolerance for name in table.networks},
    )


def transfer_settings(wildcards):
    table = table_of(wildcards)
    return settings(
        "tabulate_transfer",
        **table_settings(wildcards),
        examples=table.examples,
        rows=[row._asdict() for row in table.rows()],
        measured=[row.name for row in measured_rows(table)],
        average_distortion=table.average_distortion,
    )


def spectra_settings(wildcards):
    return settings("measure_spectra", images=wildcards.images)


def spectral_settings(wildcards):
    table = table_of(wildcards)
    shared = {key: value for key, value in table_settings(wildcards).items() if key in ("table", "comparable", "paper")}
    return settings("tabulate_spectra", **shared, networks=table.networks, examples=table.examples)


def methods_settings(wildcards):
    table = table_of(wildcards)
    return settings(
        "tabulate_methods",
        table=wildcards.table,
        replicates=len(replicates(wildcards.variant, table)),
        comparable=config_of(wildcards).compare_with_paper,
        paper=papers_hash(wildcards.table),
        columns=table.networks,
        errors_on=table.errors_on,
        baselines=table.baselines,
    )


def methods_figure_settings(wildcards):
    table = table_of(wildcards)
    return settings(
        "plot_methods",
        table=wildcards.table,
        replicates=len(replicates(wildcards.variant, table)),
        comparable=config_of(wildcards).compare_with_paper,
        paper=papers_hash(wildcards.table),
        networks=table.networks,
    )


def inspect_settings(wildcards):
    units = CONFIG.units
    section = plain(units.of[wildcards.section], "network", "figures")
    return settings("inspect_units", **section, seed=units.seed, **machine(CONFIG.evaluation))


def units_figure_settings(wildcards):
    name, kind = UNITS_FIGURES[wildcards.figure]
    section = plain(CONFIG.units.of[name], "figures", "top")
    return settings("plot_units", **section, kind=kind, shown=CONFIG.units.shown, seed=CONFIG.units.seed)


def picture_settings(wildcards):
    table = CONFIG.tables[wildcards.table]
    rows = [{"name": row.name, "network": row.network} for row in figures_rows(wildcards)]
    return settings("plot_adversarial", table=wildcards.table, rows=rows, columns=table.networks, images=table.distorted)


def archived_project():
    """The project's own files, without what is made from them, and their SHA-256: another content makes another archive."""
    found = [path for name in ARCHIVED_FOLDERS for path in PROJECT.joinpath(name).rglob("*") if path.is_file()]
    names = [*ARCHIVED_FILES, *(path.relative_to(PROJECT).as_posix() for path in found)]
    return {name: sha256((PROJECT / name).read_bytes()).hexdigest() for name in names if not re.search(MADE, name)}


def archive_settings(wildcards):
    if rules.archive.output[0] != "results/archive.zip":
        raise WorkflowError(
            f"{rules.archive.output[0]} is not made, as an archive runs again by itself, without a prefix: "
            "run this workflow by itself in a --directory, and archive that"
        )
    return settings("archive", project=archived_project(), config=CONFIGURATION)


def page_settings(wildcards):
    """The page shows source files, so that here their comments count too."""
    shown = [sha256(path.read_bytes()).hexdigest() for path in (PAGE, *module_files())]
    return settings("render_audit", shown=sha256("".join(shown).encode()).hexdigest())
