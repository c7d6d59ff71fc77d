"""Colours and sizes that all pictures share."""

DOTS_PER_INCH = 100
PANEL_INCHES = (7.0, 4.6)
# Vermilion and blue of Okabe and Ito, distinguishable with common colour blindness and in grey.
SGD_COLOUR = "#D55E00"
SAM_COLOUR = "#0072B2"
# With several SAM conditions, the shades go from light for small rho to dark for large rho.
LIGHTEST_SAM, DARKEST_SAM = "#8CC8EE", "#00263D"


def shades(count: int) -> list[str]:
    """Return a number of blues, from light to dark; a single one is SAM_COLOUR."""
    if count == 1:
        return [SAM_COLOUR]
    light, dark = (bytes.fromhex(name[1:]) for name in (LIGHTEST_SAM, DARKEST_SAM))
    mixed = (
        bytes(round(a + step / (count - 1) * (b - a)) for a, b in zip(light, dark, strict=True))
        for step in range(count)
    )
    return [f"#{colour.hex().upper()}" for colour in mixed]
