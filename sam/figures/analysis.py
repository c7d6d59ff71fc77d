"""The picture of one analysis of any kind."""

from matplotlib.figure import Figure

from sam.figures.second_order import draw_second_order
from sam.figures.sharpness import draw_sharpness
from sam.figures.spectrum import draw_spectrum
from sam.figures.surface import draw_landscape
from sam.record.analyses import Analysis

DRAWINGS = {
    "sharpness": draw_sharpness,
    "hessian": draw_spectrum,
    "landscape": draw_landscape,
    "second_order": draw_second_order,
}


def draw_analysis(analysis: Analysis) -> Figure:
    """Draw one analysis.

    Args:
        analysis: An analysis of any kind.

    Raises:
        ValueError: If its files are broken.
    """
    return DRAWINGS[analysis.name](analysis)
