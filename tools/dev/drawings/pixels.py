"""Colours of pixels in maps: which ones the result of a pixel depends on, and how much."""

from math import exp

from drawings.canvas import QUERY, Colour


def at(r: int, c: int, row: int, column: int) -> bool:
    """Whether a pixel is the one at (row, column)."""
    return (r, c) == (row, column)


def around(
    n: int, size: int, step: int = 1, strength: int = 3, centre: int | None = None
) -> Colour:
    """Window of size x size taps, ``step`` pixels apart, around the centre of n x n pixels."""
    m, half = n // 2 if centre is None else centre, size // 2

    def colour(r: int, c: int) -> int | str:
        if (r, c) == (m, m):
            return QUERY
        dy, dx = abs(r - m), abs(c - m)
        inside = dy <= half * step and dx <= half * step and not dy % step and not dx % step
        return strength if inside else 0

    return colour


def shifted(n: int, size: int, row: int, column: int, step: int = 1) -> Colour:
    """Window of neighborhood attention, moved inwards at the border."""

    def taps(p: int) -> set[int]:
        line = list(range(p % step, n, step))
        i = line.index(p)
        start = min(max(i - size // 2, 0), max(len(line) - size, 0))
        return set(line[start : start + size])

    rows, columns = taps(row), taps(column)
    return lambda r, c: QUERY if at(r, c, row, column) else 3 * (r in rows and c in columns)


def everything(n: int, row: int = 4, column: int = 3, strength: int = 2) -> Colour:
    """All pixels of the map."""
    return lambda r, c: QUERY if at(r, c, row, column) else strength


def fading(n: int, centre: tuple[float, float], spread: float, row: int, column: int) -> Colour:
    """Weights that fall with the distance from a centre."""

    def colour(r: int, c: int) -> int | str:
        if at(r, c, row, column):
            return QUERY
        d = (r - centre[0]) ** 2 + (c - centre[1]) ** 2
        return round(5 * exp(-d / 2 / spread**2))

    return colour


def stripes(n: int, long: int, short: int, upright: bool) -> Colour:
    """Stripe of long x short taps around the centre."""
    m = n // 2

    def colour(r: int, c: int) -> int | str:
        dy, dx = abs(r - m), abs(c - m)
        if upright:
            dy, dx = dx, dy
        return QUERY if r == c == m else 3 * (dx <= long // 2 and dy <= short // 2)

    return colour
