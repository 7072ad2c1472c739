"""SVG drawings: text, boxes, arrows, and maps of pixels."""

from collections.abc import Callable
from html import escape

WIDTH = 760
INK, GREY, LINE, PAPER = '#22313f', '#66757f', '#c9d1d6', '#fbfcfd'
QUERY = '#e76f2c'
TEALS = ('#ffffff', '#dcefed', '#a8d8d3', '#62b5ad', '#2a8f86', '#176b63')
"""From no influence to the strongest."""
SAND, SKY, ROSE = '#f6e3b4', '#cfe3f5', '#f5d3d3'
Colour = Callable[[int, int], int | str]


class Drawing:
    """An SVG that is built from elements in the order in which they are added.

    Args:
        title: Title for screen readers.
        height: Height; the width is ``WIDTH``.
    """

    def __init__(self, title: str, height: int):
        self.title, self.height, self.parts = title, height, []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 13,
        colour: str = INK,
        anchor: str = 'middle',
        weight: str = 'normal',
    ) -> None:
        """Add lines of text; ``y`` is the base line of the first."""
        for i, line in enumerate(text.split('\n')):
            self.parts.append(
                f'<text x="{x:g}" y="{y + i * size * 1.2:g}" font-size="{size}" fill="{colour}" '
                f'text-anchor="{anchor}" font-weight="{weight}">{escape(line)}</text>'
            )

    def rect(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        fill: str,
        stroke: str = LINE,
        radius: float = 0,
        width: float = 1,
    ) -> None:
        """Add a rectangle with its upper left corner at (x, y)."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius:g}" '
            f'fill="{fill}" stroke="{stroke}" stroke-width="{width:g}"/>'
        )

    def grid(
        self, x: float, y: float, n: int, colour: Colour, side: float = 130, caption: str = ''
    ) -> None:
        """Add a map of n x n pixels; ``colour(row, column)`` is a colour or index of ``TEALS``."""
        cell = side / n
        self.rect(x, y, side, side, TEALS[0])
        for r in range(n):
            fills = [colour(r, c) for c in range(n)]
            start = 0
            for c in range(1, n + 1):  # neighbours of one colour as one rectangle
                if c < n and fills[c] == fills[start]:
                    continue
                fill = fills[start]
                if fill:
                    fill = TEALS[fill] if isinstance(fill, int) else fill
                    place = f'x="{x + start * cell:.4g}" y="{y + r * cell:.4g}"'
                    self.parts.append(
                        f'<rect {place} width="{(c - start) * cell:.4g}" height="{cell:.4g}" '
                        f'fill="{fill}"/>'
                    )
                start = c
        lines = ''.join(
            f'M{x + i * cell:.4g},{y:g}v{side:g}M{x:g},{y + i * cell:.4g}h{side:g}'
            for i in range(1, n)
        )
        self.parts.append(f'<path d="{lines}" stroke="{LINE}" stroke-width="0.6"/>')
        self.text(x + side / 2, y + side + 17, caption, 12, GREY)

    def arrow(self, x1: float, y1: float, x2: float, y2: float, colour: str = GREY) -> None:
        """Add a straight arrow."""
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" '
            'stroke-width="1.4" marker-end="url(#tip)"/>'
        )

    def box(self, x: float, y: float, w: float, text: str, fill: str = SKY, h: float = 38) -> None:
        """Add a box with text, centred at (x, y)."""
        self.rect(x - w / 2, y - h / 2, w, h, fill, radius=5)
        lines = text.count('\n')
        self.text(x, y + 4.5 - lines * 7.2, text, 12)

    def dot(self, x: float, y: float, sign: str) -> None:
        """Add a circle with the sign of an operation."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="11" fill="{PAPER}" stroke="{INK}" '
            'stroke-width="1.2"/>'
        )
        self.text(x, y + 5, sign, 15)

    def path(self, points: list[tuple[float, float]]) -> None:
        """Add an arrow along several points."""
        d = ' '.join(f'{x:g},{y:g}' for x, y in points)
        self.parts.append(
            f'<polyline points="{d}" fill="none" stroke="{GREY}" stroke-width="1.4" '
            'marker-end="url(#tip)"/>'
        )

    def flow(self, y: float, *steps: str, x: float = 30, right: float = WIDTH - 30) -> list[float]:
        """Add boxes from left to right with arrows in between; return their centres.

        A step of one character is an operation, one in brackets a plain name.
        """
        widths = [
            22 if len(s) == 1 else max(len(line) for line in s.split('\n')) * 6.3 + 12
            for s in steps
        ]
        gap = (right - x - sum(widths)) / (len(steps) - 1)
        if gap < 14:
            raise ValueError(f'{self.title}: the steps {steps} are too wide, by {14 - gap:.0f}')
        centres, at = [], x
        for step, width in zip(steps, widths, strict=True):
            centre = at + width / 2
            if centres:
                self.arrow(at - gap + 3, y, at - 3, y)
            if len(step) == 1:
                self.dot(centre, y, step)
            elif step[0] == '(':
                self.text(centre, y + 5, step[1:-1], 14, weight='bold')
            else:
                self.box(centre, y, width, step)
            centres.append(centre)
            at += width + gap
        return centres

    def over(self, start: float, end: float, y: float, label: str = '', lift: float = 36) -> None:
        """Add an arrow from ``start`` over the flow at ``y`` down to ``end``."""
        self.path([(start, y - 12), (start, y - lift), (end, y - lift), (end, y - 14)])
        self.text((start + end) / 2, y - lift - 5, label, 11, GREY)

    def svg(self) -> str:
        """Text of the SVG file."""
        body = '\n'.join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.height}" '
            f'viewBox="0 0 {WIDTH} {self.height}" font-family="Helvetica, Arial, sans-serif" '
            f'role="img">\n<title>{escape(self.title)}</title>\n'
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{GREY}"/></marker>'
            f'</defs>\n<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{self.height - 1}" '
            f'rx="10" fill="{PAPER}" stroke="{LINE}"/>\n{body}\n</svg>\n'
        )
