"""Claims of the paper's Sections 3 and 4 to 4.3, tested on the cells of our tables.

Each claim is a function of the cells. Its docstring is the statement. It returns numbers, a test and a
verdict. The tests are one-sided: Fisher's test for counts, and Welch's test for errors over several
trainings. If several pairs are tested at once, each is tested at the significance level divided by the number
of pairs.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pandas as pd
from scipy import stats

from blindspots.analysis.statistics import SIGNIFICANCE

SUPPORTED, PARTLY, REFUTED, NOT_TESTED = "supported", "supported in part", "not supported", "not tested"


class UntestableError(Exception):
    """There is too little to test a claim on; the message says what is missing."""


class Finding(NamedTuple):
    """The result of a claim's test.

    Attributes:
        numbers: The numbers behind the verdict, in words.
        test: What was tested, and its result, in words.
        verdict: One of `SUPPORTED`, `PARTLY`, `REFUTED` and `NOT_TESTED`.
    """

    numbers: str
    test: str
    verdict: str


class Rate(NamedTuple):
    """A rate over images.

    Attributes:
        value: The rate, in percent.
        n: The number of images.
    """

    value: float
    n: int

    @property
    def counts(self) -> tuple[int, int]:
        """The number of images that count, and the number of those that do not."""
        events = round(self.value / 100 * self.n)
        return events, self.n - events


class Trainings(NamedTuple):
    """A rate over at least two trainings from different seeds.

    Attributes:
        mean: The mean over the trainings, in percent.
        std: The standard deviation over the trainings, in percentage points.
        seeds: The number of trainings.
    """

    mean: float
    std: float
    seeds: int

    def __str__(self) -> str:
        """Return the mean and the standard deviation as text, in percent."""
        return f"{self.mean:.2f} ± {self.std:.2f} %"

    def below(self, other: "Trainings | float") -> float:
        """Test whether this rate is lower than another one, by Welch's one-sided test.

        Args:
            other: The other rate over trainings, or a number in percent.
        Returns:
            The p value of the hypothesis that the other rate is not higher.
        """
        mean, std, seeds = other if isinstance(other, Trainings) else (other, 0.0, self.seeds)
        found = stats.ttest_ind_from_stats(*self, mean, std, seeds, equal_var=False, alternative="less")
        return float(found.pvalue)


class Cells:
    """The cells of all tables, by table, row and column.

    Attributes:
        frame: One line per cell, with table, row and column as its index.
    """

    def __init__(self, frame: pd.DataFrame):
        """Index the cells.

        Args:
            frame: One line per cell, as the files `*.cells.csv` have them.
        """
        self.frame = frame.set_index(["table", "row", "column"]).sort_index()

    def rate(self, table: str, row: str, column: str) -> Rate:
        """Return a cell that is a rate over images.

        Args:
            table: The table.
            row: The cell's row.
            column: The cell's column.
        Returns:
            The rate.
        Raises:
            KeyError: If there is no such cell.
        """
        cell = self.frame.loc[(table, row, column)]
        return Rate(float(cell["value"]), int(cell["n"]))

    def trainings(self, table: str, row: str, column: str) -> Trainings:
        """Return a cell that is a rate over several trainings.

        Args:
            table: The table.
            row: The cell's row.
            column: The cell's column.
        Returns:
            The rate.
        Raises:
            KeyError: If there is no such cell.
            UntestableError: If the table has only one training of the row.
        """
        cell = self.frame.loc[(table, row, column)]
        seeds = len(cell["artifact"].split(";"))
        if seeds < 2:
            raise UntestableError(f"{table} has one training of {row}: give the table two seeds at least")
        return Trainings(float(cell["value"]), float(cell["std_over_seeds"]), seeds)

    def value(self, table: str, row: str, column: str) -> float:
        """Return the value of a cell, in the cell's unit.

        Args:
            table: The table.
            row: The cell's row.
            column: The cell's column.
        Returns:
            The value.
        Raises:
            KeyError: If there is no such cell.
        """
        return float(self.frame.loc[(table, row, column), "value"])

    def rows(self, table: str, pattern: str) -> pd.DataFrame:
        """Return the cells of a table whose complete row name matches a regular expression.

        Args:
            table: The table.
            pattern: The regular expression.
        Returns:
            One line per cell, with row and column as its index.
        Raises:
            KeyError: If there is no such table, or no row matches.
        """
        frame = self.frame.loc[table]
        found = frame[frame.index.get_level_values("row").str.fullmatch(pattern)]
        if found.empty:
            raise KeyError((table, pattern))
        return found

    def columns(self, table: str) -> list[str]:
        """Return the names of the networks of a transfer table.

        Args:
            table: The table.
        Returns:
            The names, each of which is both a row and a column.
        Raises:
            KeyError: If there is no such table.
        """
        frame = self.frame.loc[table]
        return [name for name in frame.index.unique("column") if (name, name) in frame.index]

    def pairs(self, table: str) -> list[tuple[str, str]]:
        """Return all ordered pairs of two different networks of a transfer table.

        Args:
            table: The table.
        Returns:
            The pairs: the network that the examples are made for, and the network that classifies them.
        Raises:
            KeyError: If there is no such table.
        """
        networks = self.columns(table)
        return [(row, column) for row in networks for column in networks if row != column]


def higher(one: Rate, other: Rate) -> float:
    """Test whether a rate is higher than another one, by Fisher's one-sided test.

    Args:
        one: The first rate.
        other: The second rate.
    Returns:
        The p value of the hypothesis that the first rate is not higher.
    """
    return float(stats.fisher_exact([one.counts, other.counts], alternative="greater").pvalue)


def _each_higher(pairs: Iterable[tuple[Rate, Rate]]) -> tuple[int, int]:
    """Count the pairs whose first rate is higher, each tested at the level divided by the number of pairs."""
    values = [higher(one, other) for one, other in pairs]
    return sum(p < SIGNIFICANCE / len(values) for p in values), len(values)


def _verdict(held: int, total: int) -> str:
    return SUPPORTED if held == total else PARTLY if held > total / 2 else REFUTED


def _range(values: Iterable[float], digits: int = 1, unit: str = " %") -> str:
    values = list(values)
    if not values:
        raise UntestableError("the tables have no networks to compare in this")
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}{unit}"


def _rates(rates: Iterable[Rate]) -> str:
    return _range(rate.value for rate in rates)


def no_distinction(cells: Cells) -> Finding:
    """Images that have most of a random direction are as alike as those that have most of a single \
unit (3)."""
    effects = cells.rows("units", r"\w+_trained_units_against_directions")
    alike = (effects["ci_low"] <= 0.5) & (effects["ci_high"] >= 0.5)
    # With too few rows an interval contains every value.
    alike &= (effects["ci_low"] >= 1 / 3) & (effects["ci_high"] <= 2 / 3)
    numbers = ", ".join(
        f"{row.removesuffix('_trained_units_against_directions')} {column} {cell['value']:.2f}"
        for (row, column), cell in effects.iterrows()
    )
    return Finding(
        f"the probability that a unit's number is larger than a direction's: {numbers}",
        "the 95 % interval has ½ in it, and lies between ⅓ and ⅔, "
        f"for {alike.sum()} of {len(alike)} comparisons",
        _verdict(alike.sum(), len(alike)),
    )


def for_photographs(cells: Cells) -> Finding:
    """For networks trained on ImageNet every image has one, too, at an imperceptible distance \
(4.1, Figure 5)."""
    networks = cells.columns("figure5")
    own = {name: cells.rate("figure5", name, name) for name in networks}
    sizes = [cells.value("figure5", name, "distortion") for name in networks]
    found, n = sum(rate.counts[0] for rate in own.values()), sum(rate.n for rate in own.values())
    return Finding(
        f"{' and '.join(networks)} misclassify {found} of {n} examples made for them, "
        f"of stddev {_range(sizes, 4, '')}",
        "every example counts; the paper's AlexNet: stddev 0.0065",
        _verdict(found, n),
    )


def from_the_first_layer(cells: Cells) -> Finding:
    """Instabilities can appear as soon as in the first layer: its upper bound is above 1 (4.3, Table 5)."""
    bounds = pd.concat([_first_layers(cells, table) for table in ("table5", "table5_mnist")])
    upper = bounds.xs("upper", level="column")["value"]
    found = bounds.xs("instability", level="column")["value"]
    names = [row.rpartition("_")[0].rpartition("_")[0] for row in upper.index]
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in zip(names, upper, strict=True))
    above = (upper > 1).sum()
    return Finding(
        f"upper bounds of the first layers: {numbers}",
        f"above 1 for {above} of {len(upper)} networks; the examples come to {_range(found, 2, '')}",
        _verdict(above, len(upper)),
    )


def for_every_image(cells: Cells) -> Finding:
    """Every image has an adversarial example, for every network (4.1, observation 1)."""
    tried = {
        "table2": cells.rate("table2", "noise_0.1", "softmax1").n,
        "table4": cells.rate("table4", "noise_0.06", "M1").n,
    }
    own = [(table, cells.rate(table, name, name)) for table in tried for name in cells.columns(table)]
    found = sum(rate.counts[0] for _, rate in own)
    n = sum(tried[table] for table, _ in own)
    images = sum(tried.values())  # All networks have the same images, so this is the sample's size.
    bound = (
        float(stats.beta.ppf(1 - SIGNIFICANCE, n - found + 1, images - (n - found)))
        if n - found < images
        else 1.0
    )
    numbers = (
        f"for {found} of {n} images an example is misclassified by the network that it was made for "
        f"({len(own)} networks)"
    )
    return Finding(
        numbers, f"at the 1 % level fewer than {100 * bound:.3f} % of images have none", _verdict(found, n)
    )


def trained_below(cells: Cells) -> Finding:
    """Trained with adversarial examples of each layer, a 100-100-10 network gets a test error \
below 1.2 % (4.2)."""
    # The paper does not say which units. It claims that there is one such network.
    pools = {
        units: cells.trainings("adversarial_training", f"{units}_pools", "error_test")
        for units in ("sigmoid", "relu")
    }
    below = {units: errors.below(1.2) for units, errors in pools.items()}
    surely = min(below.values()) < SIGNIFICANCE / len(below)
    return Finding(
        "; ".join(f"{units}: {errors} over {errors.seeds} trainings" for units, errors in pools.items()),
        "below 1.2 % (Student, one-sided): "
        f"{', '.join(f'{units} p = {p:.2g}' for units, p in below.items())}",
        SUPPORTED if surely else PARTLY if any(errors.mean < 1.2 for errors in pools.values()) else REFUTED,
    )


def dropout_helps(cells: Cells) -> Finding:
    """A network of this size gets to 1.6 % by weight decay alone, and to around 1.3 % by dropout (4.2)."""
    pairs = _trained_both_ways(cells, "decay", "dropout")
    lower = {units: dropout.below(decay) for units, (decay, dropout) in pairs.items()}
    helped = {units for units, p in lower.items() if p < SIGNIFICANCE / len(lower)}
    near = {
        units
        for units, (decay, dropout) in pairs.items()
        if abs(decay.mean - 1.6) < 0.15 and abs(dropout.mean - 1.3) < 0.15
    }
    tests = ", ".join(f"{units} p = {p:.2g}" for units, p in lower.items())
    return Finding(
        "; ".join(
            f"{units}: weight decay {decay}, dropout {dropout}" for units, (decay, dropout) in pairs.items()
        ),
        f"lower by dropout (Welch, one-sided): {tests}; "
        f"both to 0.15 the paper's: {', '.join(sorted(near)) or 'none'}",
        SUPPORTED if helped & near else PARTLY if helped else REFUTED,
    )


def higher_layers(cells: Cells) -> Finding:
    """Adversarial examples of the higher layers are more useful than those of the input (4.2)."""
    pairs = _trained_both_ways(cells, "hidden", "input")
    lower = {units: hidden.below(given) for units, (hidden, given) in pairs.items()}
    held = sum(p < SIGNIFICANCE / len(lower) for p in lower.values())
    numbers = "; ".join(
        f"{units}: hidden layers {hidden}, input {given}" for units, (hidden, given) in pairs.items()
    )
    tests = ", ".join(f"{units} p = {p:.2g}" for units, p in lower.items())
    return Finding(
        numbers,
        f"lower by those of the hidden layers (Welch, one-sided): {tests}",
        _verdict(held, len(lower)),
    )


def without_the_extreme(cells: Cells) -> Finding:
    """Even a classifier with an extreme weight decay, λ = 1, has them (4.2, on softmax3)."""
    rate = cells.rate("table2", "softmax3", "softmax3")
    return Finding(
        f"softmax3 misclassifies {rate.value:.1f} % of {rate.n} examples that were made for it",
        "every example counts",
        _verdict(rate.counts[0], rate.n),
    )


def smaller_than_noise(cells: Cells) -> Finding:
    """The distortions are smaller than noise of stddev 0.1 for all but one of the networks \
(4.2, on Table 2)."""
    sizes = {
        name: cells.value("table2", name, "distortion")
        for name in cells.columns("table2")
        if name in PAPERS_NETWORKS
    }
    above = [name for name, size in sizes.items() if size >= 0.1]
    numbers = ", ".join(f"{name} {size:.3f}" for name, size in sizes.items())
    return Finding(
        numbers, f"at 0.1 or above: {', '.join(above) or 'none'}", SUPPORTED if len(above) <= 1 else REFUTED
    )


def across_models(cells: Cells) -> Finding:
    """Networks with other hyperparameters misclassify many of them (4.1, observation 2)."""
    pairs = cells.pairs("table2")
    rates = [cells.rate("table2", row, column) for row, column in pairs]
    noise = [cells.rate("table2", "noise_0.1", column) for _, column in pairs]
    held, total = _each_higher(zip(rates, noise, strict=True))
    return Finding(
        f"other networks misclassify {_rates(rates)}",
        f"higher than under noise of stddev 0.1 for {held} of {total} pairs",
        _verdict(held, total),
    )


def across_training_sets(cells: Cells) -> Finding:
    """Networks that were trained on other images misclassify many of them (4.1, observation 3)."""
    pairs = _between_training_sets(cells)
    rates = [cells.rate("table4", row, column) for row, column in pairs]
    noise = [cells.rate("table4", "noise_0.06", column) for _, column in pairs]
    held, total = _each_higher(zip(rates, noise, strict=True))
    return Finding(
        f"networks trained on the other half misclassify {_rates(rates)}",
        f"higher than under noise of stddev 0.06 for {held} of {total} pairs",
        _verdict(held, total),
    )


def less_across_training_sets(cells: Cells) -> Finding:
    """Across training sets they are considerably less effective than within one (4.2, on Table 4)."""
    within = [cells.rate("table4", *pair) for pair in _within_training_set(cells)]
    between = [cells.rate("table4", *pair) for pair in _between_training_sets(cells)]
    held, total = _each_higher((one, other) for one in within for other in between)
    return Finding(
        f"within a training set {_rates(within)}, between two {_rates(between)}",
        f"higher within for {held} of {total} comparisons",
        _verdict(held, total),
    )


def amplified_stay_hard(cells: Cells) -> Finding:
    """Amplified, they remain hard for networks that were trained on other images (4.2, on Table 4)."""
    pairs = _between_training_sets(cells)
    rates = [cells.rate("table4", f"{row}_amplified", column) for row, column in pairs]
    noise = [cells.rate("table4", "noise_0.1", column) for _, column in pairs]
    held, total = _each_higher(zip(rates, noise, strict=True))
    return Finding(
        f"amplified to stddev 0.1, {_rates(rates)} are misclassified across training sets; under noise "
        f"of that size {_rates(noise)}",
        f"higher than under the noise for {held} of {total} pairs",
        _verdict(held, total),
    )


def noise_is_harmless(cells: Cells) -> Finding:
    """Gaussian noise of the same size does far less harm (4.2, on Tables 2 and 4)."""
    networks = cells.columns("table4")
    noise = [cells.rate("table4", "noise_0.06", name) for name in networks]
    plain = [cells.rate("table3", name, "error_test") for name in networks]
    other = [cells.rate("table4", row, column) for row, column in cells.pairs("table4")]
    own = [cells.rate("table4", name, name) for name in networks]
    harmed, total = _each_higher(zip(noise, plain, strict=True))
    held, pairs = _each_higher((rate, quiet) for rate in [*own, *other] for quiet in noise)
    return Finding(
        f"noise of stddev 0.06: {_rates(noise)}; undistorted: {_rates(plain)}; "
        f"examples made for other networks: {_rates(other)}",
        f"noise does more harm than none to {harmed} of {total} networks, "
        f"and less than examples in {held} of {pairs} comparisons",
        _verdict(held, pairs),
    )


def most_resilient(cells: Cells) -> Finding:
    """The network with the autoencoder is the most resilient to the examples of others (4.2, on Table 2)."""
    networks = [name for name in cells.columns("table2") if name in PAPERS_NETWORKS]
    foreign = {
        column: [cells.rate("table2", row, column) for row in networks if row != column]
        for column in networks
    }
    # All rows have the same images. So their errors are not independent, and count as one row in the test.
    pooled = {
        name: Rate(sum(r.value * r.n for r in rates) / sum(r.n for r in rates), min(r.n for r in rates))
        for name, rates in foreign.items()
    }
    autoencoder = pooled.pop("AE400_10")
    best = min(pooled, key=lambda name: pooled[name].value)
    held, total = _each_higher((rate, autoencoder) for rate in pooled.values())
    return Finding(
        f"AE400_10 misclassifies {autoencoder.value:.1f} % of the others' examples; of the other networks "
        f"{best} is the most resilient, with {pooled[best].value:.1f} %",
        f"fewer than {held} of {total} networks",
        SUPPORTED if held == total else REFUTED,
    )


def not_immune(cells: Cells) -> Finding:
    """It is not immune either (4.2, on Table 2)."""
    own = cells.rate("table2", "AE400_10", "AE400_10")
    rows = [name for name in cells.columns("table2") if name != "AE400_10"]
    noise = cells.rate("table2", "noise_0.1", "AE400_10")
    held, total = _each_higher((cells.rate("table2", row, "AE400_10"), noise) for row in rows)
    return Finding(
        f"AE400_10 misclassifies {own.value:.1f} % of its own examples, "
        f"and under noise of stddev 0.1 {noise.value:.1f} %",
        f"higher than under the noise for the examples of {held} of {total} networks",
        SUPPORTED if own.value == 100 and held else REFUTED,
    )


def half_under_noise(cells: Cells) -> Finding:
    """Under noise of stddev 1 about half of the images are still recognised, adversarial ones never \
(Figure 7)."""
    networks = cells.columns("figure7")
    right = {name: 100 - cells.value("figure7", "noise_1.0", name) for name in networks}
    own = [cells.value("figure7", name, name) for name in networks]
    numbers = ", ".join(f"{name} {value:.1f} %" for name, value in right.items())
    near = sum(abs(value - 50) < 10 for value in right.values())
    return Finding(
        f"right under noise of stddev 1: {numbers}; of the adversarial examples: {100 - min(own):.1f} %",
        f"within 10 points of a half for {near} of {len(right)} networks",
        _verdict(near, len(right)) if min(own) == 100 else REFUTED,
    )


def magnified(cells: Cells) -> Finding:
    """The amplification to stddev 0.1 makes the distortions some 40 % larger (4.2, on Table 4)."""
    sizes = [cells.value("table3", name, "distortion") for name in cells.columns("table4")]
    factors = [0.1 / size for size in sizes]
    return Finding(
        f"distortions of {_range(sizes, 3, '')} become "
        f"{_range((100 * (factor - 1) for factor in factors), 0)} larger",
        "the paper says 40 %; from its own 0.06 it would be 67 %",
        SUPPORTED if all(1.3 < factor < 1.5 for factor in factors) else REFUTED,
    )


PAPERS_NETWORKS = ("softmax1", "softmax2", "softmax3", "N100_100_10", "N200_200_10", "AE400_10")
CLAIMS = (
    no_distinction,
    for_every_image,
    for_photographs,
    without_the_extreme,
    smaller_than_noise,
    across_models,
    across_training_sets,
    less_across_training_sets,
    amplified_stay_hard,
    magnified,
    noise_is_harmless,
    most_resilient,
    not_immune,
    half_under_noise,
    from_the_first_layer,
    trained_below,
    dropout_helps,
    higher_layers,
)


def findings(frame: pd.DataFrame) -> dict[str, Finding]:
    """Test each claim on the cells of all tables.

    Args:
        frame: One line per cell, as `results/*.cells.csv` have them.
    Returns:
        The result of each claim, by its statement. A claim without its cells is not tested.
    """
    cells = Cells(frame)
    return {claim.__doc__: _found(claim, cells) for claim in CLAIMS}


def _found(claim: Callable[[Cells], Finding], cells: Cells) -> Finding:
    try:
        return claim(cells)
    except KeyError as missing:
        return Finding("–", f"there is no cell {missing.args[0]}", NOT_TESTED)
    except UntestableError as reason:
        return Finding("–", str(reason), NOT_TESTED)


def _trained_both_ways(cells: Cells, *ways: str) -> dict[str, list[Trainings]]:
    """Return the test errors of networks with either kind of units, trained in two ways."""
    return {
        units: [cells.trainings("adversarial_training", f"{units}_{way}", "error_test") for way in ways]
        for units in ("sigmoid", "relu")
    }


def _first_layers(cells: Cells, table: str) -> pd.DataFrame:
    """Return the cells of each network's first linear map; if the network has a convolution, it is one."""
    frame = cells.rows(table, r"\w+_(conv|fc)_1")
    convolutional = {row.removesuffix("_conv_1") for row, _ in frame.index if row.endswith("_conv_1")}
    return frame[
        [not (row.endswith("_fc_1") and row.removesuffix("_fc_1") in convolutional) for row, _ in frame.index]
    ]


def _within_training_set(cells: Cells) -> list[tuple[str, str]]:
    return [pair for pair in cells.pairs("table4") if _same_half(cells, *pair)]


def _between_training_sets(cells: Cells) -> list[tuple[str, str]]:
    return [pair for pair in cells.pairs("table4") if not _same_half(cells, *pair)]


def _same_half(cells: Cells, one: str, other: str) -> bool:
    """Check whether two networks were trained on the same half, which is the one with the smaller error."""

    def half(name: str) -> bool:
        return cells.value("table3", name, "error_P1") < cells.value("table3", name, "error_P2")

    return half(one) == half(other)
