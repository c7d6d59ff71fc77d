"""The function that draws each figure, by the figure's name on the command line."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from sam.figures.calibration import draw_calibration
from sam.figures.compute import draw_error_by_compute, draw_error_by_epochs
from sam.figures.curves import draw_error_curves
from sam.figures.inner_steps import fig7
from sam.figures.prediction import fig3_predictive
from sam.figures.radius import draw_balls, draw_rho, draw_rho_by_m
from sam.figures.relative_error import draw_relative_errors
from sam.figures.second_order import fig5
from sam.figures.sharpness import sharpness_by_condition
from sam.figures.spectrum import fig3_spectrum
from sam.figures.surface import fig1_surfaces
from sam.figures.update_orders import draw_update_orders
from sam.paper.cells import Cell, Match
from sam.report.groups import Group

OF_GROUPS: dict[str, Callable[[Sequence[Group]], Figure]] = {
    "fig1-surfaces": fig1_surfaces,
    "fig3-spectrum": fig3_spectrum,
    "fig3-rho": draw_rho_by_m,
    "fig3-predictive": fig3_predictive,
    "fig4": draw_update_orders,
    "fig5": fig5,
    "fig6": draw_balls,
    "fig7": fig7,
    "sharpness": sharpness_by_condition,
    "error-compute": draw_error_by_compute,
    "error-epochs": draw_error_by_epochs,
    "rho": draw_rho,
    "curves": draw_error_curves,
    "calibration": draw_calibration,
}


def draw(
    name: str,
    groups: Sequence[Group],
    matches: Mapping[tuple[str, str], Sequence[Match]],
    cells: Sequence[Cell],
) -> Figure:
    """Draw a figure.

    Args:
        name: "fig1", or a key of OF_GROUPS.
        groups: Conditions.
        matches: The cells of the paper that each condition repeats, by `Group.key`; used by fig1.
        cells: The paper's cells; used by fig1.

    Raises:
        ValueError: If there is nothing to draw; the message says what is missing.
    """
    if name == "fig1":
        return draw_relative_errors(groups, matches, cells)
    return OF_GROUPS[name](groups)
