"""Colours and sizes that all pictures share."""

DOTS_PER_INCH = 100
PANEL_INCHES = (7.0, 4.6)
# Vermilion and blue of Okabe and Ito, apart for every common kind of colour blindness and in grey.
SGD_COLOUR = "#D55E00"
SAM_COLOUR = "#0072B2"
# More SAM conditions: shades from light to dark with growing rho.
LIGHTEST_SAM, DARKEST_SAM = "#8CC8EE", "#00263D"


def shades(count: int) -> list[str]:
    """Return so many blues, from light to dark; the one SAM colour for one."""
    if count == 1:
        return [SAM_COLOUR]
    light, dark = (bytes.fromhex(name[1:]) for name in (LIGHTEST_SAM, DARKEST_SAM))
    mixed = (
        bytes(round(a + step / (count - 1) * (b - a)) for a, b in zip(light, dark, strict=True))
        for step in range(count)
    )
    return [f"#{colour.hex().upper()}" for colour in mixed]
