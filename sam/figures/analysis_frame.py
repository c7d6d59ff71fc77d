"""What the pictures of analyses share beyond the frame of all pictures: their words, their lines."""

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from sam.figures.error_panels import add_caption, range_text
from sam.figures.style import DOTS_PER_INCH
from sam.report.analyses import Analysis
from sam.report.measured import Measured

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure that makes room for its texts.

    Args:
        width: In inches.
        height: The same.
    """
    return Figure((width, height), DOTS_PER_INCH, layout="constrained")


def set_texts(figure: Figure, title: str, sentences: Sequence[str], num_left_out: int = 0) -> None:
    """Write above and below all panels, broken to the width of the figure.

    Args:
        figure: To write on.
        title: What is shown.
        sentences: What the marks mean, each with its full stop.
        num_left_out: Settings that were not drawn.
    """
    figure.suptitle("\n".join(textwrap.wrap(title, round(11 * figure.get_figwidth()))), fontsize=11)
    add_caption(figure, sentences, num_left_out)


def moment(analysis: Analysis) -> str:
    """Name the run of an analysis and its epoch."""
    # The last two folders of a run directory name method and seed.
    run = "/".join(analysis.path.parts[-4:-2])
    return f"{run}, epoch {analysis.epoch}" if run else f"epoch {analysis.epoch}"


def sample(analysis: Analysis) -> str:
    """Say in a sentence which images an analysis looked at, and how."""
    record = analysis.record
    images = f"{record.get('num_images')} {record.get('split')} images"
    if record.get("statistics") == "batch":
        return f"Loss over {images}, batch norm with the statistics of each pass."
    return f"Loss over {images}, in evaluation mode."


def ball(analysis: Analysis) -> str:
    """Say where the highest loss was looked for."""
    kind = "adaptive ball" if analysis.settings.get("adaptive") else "ball"
    return f"{kind} of radius {analysis.settings.get('rho')}"


def seeds(measured: Sequence[Measured]) -> str:
    """Return how many seeds of conditions were looked at, as "n = 3" or "n = 1 to 3"."""
    return range_text([len(one.by_seed) for one in measured])


def steps_label(ascent_steps: int) -> str:
    """Return the name of a line."""
    return f"{ascent_steps} ascent step" + "s" * (ascent_steps > 1)


def draw_band(
    axis: Axes, by_epoch: Mapping[int, Sequence[float]], colour: str, style: int, label: str
) -> None:
    """Draw the mean over seeds against the epoch, and a band from the lowest to the highest seed.

    Args:
        axis: To draw on.
        by_epoch: The values of the seeds at each epoch, at least one each.
        colour: Of line and band.
        style: Which marker and which dashes; lines must differ in grey too.
        label: For the legend.
    """
    epochs = sorted(by_epoch)
    mean = [sum(by_epoch[epoch]) / len(by_epoch[epoch]) for epoch in epochs]
    line, marker = LINES[style % len(LINES)], MARKERS[style % len(MARKERS)]
    axis.plot(epochs, mean, line, color=colour, marker=marker, markersize=5, label=label)
    lowest, highest = ([pick(by_epoch[epoch]) for epoch in epochs] for pick in (min, max))
    if lowest != highest:
        axis.fill_between(epochs, lowest, highest, color=colour, alpha=0.15, linewidth=0)


def use_epoch_axis(axis: Axes) -> None:
    """Give a panel whole epochs below and a grid."""
    axis.set_xlabel("Epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.grid(alpha=0.3)


def use_m_axis(axis: Axes, sizes: Sequence[float]) -> None:
    """Give a panel a logarithmic axis of m whose ticks are the measured sizes, and a grid.

    Args:
        axis: The panel.
        sizes: Every m that is drawn.
    """
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(sorted(set(sizes))))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("m (images that share one perturbation)")
    axis.grid(alpha=0.3)


def start_at_zero(axis: Axes) -> None:
    """Let the y axis show 0, but hide no negative value."""
    if axis.dataLim.y0 >= 0:
        axis.set_ylim(bottom=0)
