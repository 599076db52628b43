"""Draw the weights of the first layer's units as images."""

from blindspots.networks import architectures
from blindspots.report import figures
from blindspots.steps import trained_networks
from blindspots.steps.artifacts import read
from blindspots.steps.step import Step, log, run


def body(step: Step) -> None:
    """Draw the figure and save it.

    Args:
        step: The run. Its input is `network`.
    """
    path = step.input("network")
    first = architectures.weight_layers(trained_networks.read(path))[0].weight.numpy()
    with read(path) as file:
        height, width = file["image_shape"][()]
    filters = first.reshape(-1, height, width) if first.ndim == 2 else first[:, 0]
    title = (
        f"{path.stem}: the weights of the {len(filters)} units of the first layer, "
        "each by its own largest; 0 is gray"
    )
    figures.save(figures.filters(filters, title), step.output[0])
    log.info("wrote %s", step.output[0])


def main(argv=None) -> int:
    return run(body, "scripts.plot_filters", ("network",), argv)


if __name__ == "__main__":
    raise SystemExit(main())
