"""Texts, line styles and axes that the pictures of analyses share."""

import textwrap
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sam.figures.error_panels import add_caption, range_text
from sam.figures.style import DOTS_PER_INCH
from sam.record.analyses import Analysis
from sam.record.values import number
from sam.report.measured import Measured

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure whose layout makes room for its texts.

    Args:
        width: The width, in inches.
        height: The height, in inches.
    """
    return Figure((width, height), DOTS_PER_INCH, layout="constrained")


def set_texts(figure: Figure, title: str, sentences: Sequence[str], num_left_out: int = 0) -> None:
    """Write a title above and a caption below all panels, wrapped to the width of the figure.

    Args:
        figure: The figure.
        title: What the figure shows.
        sentences: Explanations for the caption, each with its full stop.
        num_left_out: Number of settings that were not drawn.
    """
    figure.suptitle("\n".join(textwrap.wrap(title, round(11 * figure.get_figwidth()))), fontsize=11)
    add_caption(figure, sentences, num_left_out)


def moment(analysis: Analysis) -> str:
    """Return the run and the epoch of an analysis as text."""
    # The last two folders of a run directory name method and seed.
    run = "/".join(analysis.path.parts[-4:-2])
    return f"{run}, epoch {analysis.epoch}" if run else f"epoch {analysis.epoch}"


def sample(analysis: Analysis) -> str:
    """Return a sentence about the images of an analysis and the mode of the network."""
    record = analysis.record
    images = f"{record.get('num_images')} {record.get('split')} images"
    if record.get("statistics") == "batch":
        return f"Loss over {images}, batch norm with the statistics of each pass."
    return f"Loss over {images}, in evaluation mode."


def not_finite(analyses: Iterable[Analysis]) -> str:
    """Return a sentence about values that are not drawn because they are not finite; else an empty text."""
    count = sum(int(number(analysis.result.get("not_finite")) or 0) for analysis in analyses)
    return f"Not drawn because not finite: {count} value{'s' * (count > 1)}." if count else ""


def seeds(measured: Sequence[Measured]) -> str:
    """Return how many seeds of each condition were analysed, as "n = 3" or "n = 1 to 3"."""
    return range_text([len(one.by_seed) for one in measured])


def marks(style: int) -> dict[str, str]:
    """Return dashes and marker of a line by its number, so that lines also differ in a grey print."""
    return {"linestyle": LINES[style % len(LINES)], "marker": MARKERS[style % len(MARKERS)]}


def use_m_axis(axis: Axes, sizes: Sequence[float]) -> None:
    """Give a panel a logarithmic axis for m, with ticks at the measured values, and a grid.

    Args:
        axis: The panel.
        sizes: All values of m in the panel.
    """
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(sorted(set(sizes))))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("m (images that share one perturbation)")
    axis.grid(alpha=0.3)


def start_at_zero(axis: Axes) -> None:
    """Start the y axis at 0, unless there are negative values."""
    if axis.dataLim.y0 >= 0:
        axis.set_ylim(bottom=0)
