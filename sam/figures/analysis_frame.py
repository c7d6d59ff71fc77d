"""What the pictures of analyses share beyond the frame of all pictures: their words, their lines."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sam.figures.error_panels import add_caption, range_text
from sam.figures.style import DOTS_PER_INCH
from sam.record.analyses import Analysis
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


def seeds(measured: Sequence[Measured]) -> str:
    """Return how many seeds of conditions were looked at, as "n = 3" or "n = 1 to 3"."""
    return range_text([len(one.by_seed) for one in measured])


def marks(style: int) -> dict[str, str]:
    """Return dashes and marker of a line by its number: lines must differ in grey too."""
    return {"linestyle": LINES[style % len(LINES)], "marker": MARKERS[style % len(MARKERS)]}


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
