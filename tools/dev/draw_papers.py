#!/usr/bin/env python
# ruff: noqa: RUF001, E731 (signs of multiplication; colours of pixels as lambdas)
"""Draw what the operators of the papers do: docs/images/papers/*.svg.

    python tools/dev/draw_papers.py             # writes all
    python tools/dev/draw_papers.py --check     # only tells which are out of date (status 1)

In maps of pixels, orange is the pixel (or pixels) whose result is computed, teal what it looks at,
the darker the more it counts. Boxes are the data flow, from left to right. Every drawing stands on
a card of its own colour, so that it reads on dark and light pages alike.
"""

import argparse
import sys
from collections.abc import Callable
from html import escape
from math import exp
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / 'docs/images/papers'
WIDTH = 760
INK, GREY, LINE, PAPER = '#22313f', '#66757f', '#c9d1d6', '#fbfcfd'
QUERY = '#e76f2c'
TEALS = ('#ffffff', '#dcefed', '#a8d8d3', '#62b5ad', '#2a8f86', '#176b63')
"""From what does not count to what counts most."""
SAND, SKY, ROSE = '#f6e3b4', '#cfe3f5', '#f5d3d3'
Colour = Callable[[int, int], int | str]


class Drawing:
    """Elements of an SVG, and its height."""

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
        """Lines of text, the first one on the base line ``y``."""
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
        """Rectangle."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius:g}" '
            f'fill="{fill}" stroke="{stroke}" stroke-width="{width:g}"/>'
        )

    def grid(
        self, x: float, y: float, n: int, colour: Colour, side: float = 130, caption: str = ''
    ) -> None:
        """Map of n x n pixels; ``colour(row, column)`` is a colour or an index of ``TEALS``."""
        cell = side / n
        self.rect(x, y, side, side, TEALS[0])
        for r in range(n):
            fills = [colour(r, c) for c in range(n)]
            start = 0
            for c in range(1, n + 1):  # pixels of one colour side by side in one piece
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
        """Arrow."""
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" '
            'stroke-width="1.4" marker-end="url(#tip)"/>'
        )

    def box(self, x: float, y: float, w: float, text: str, fill: str = SKY, h: float = 38) -> None:
        """Box about the centre (x, y)."""
        self.rect(x - w / 2, y - h / 2, w, h, fill, radius=5)
        lines = text.count('\n')
        self.text(x, y + 4.5 - lines * 7.2, text, 12)

    def dot(self, x: float, y: float, sign: str) -> None:
        """Circle with the sign of an operation."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="11" fill="{PAPER}" stroke="{INK}" '
            'stroke-width="1.2"/>'
        )
        self.text(x, y + 5, sign, 15)

    def path(self, points: list[tuple[float, float]]) -> None:
        """Bent arrow."""
        d = ' '.join(f'{x:g},{y:g}' for x, y in points)
        self.parts.append(
            f'<polyline points="{d}" fill="none" stroke="{GREY}" stroke-width="1.4" '
            'marker-end="url(#tip)"/>'
        )

    def flow(self, y: float, *steps: str, x: float = 30, right: float = WIDTH - 30) -> list[float]:
        """Boxes side by side with arrows in between; their centres.

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
        """Path from above ``start`` over the flow at ``y`` down to ``end``."""
        self.path([(start, y - 12), (start, y - lift), (end, y - lift), (end, y - 14)])
        self.text((start + end) / 2, y - lift - 5, label, 11, GREY)

    def svg(self) -> str:
        """The whole file."""
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


# ---------------------------------------------------------------- what a pixel looks at


def at(r: int, c: int, row: int, column: int) -> bool:
    """Whether a pixel is the one at (row, column)."""
    return (r, c) == (row, column)


def around(
    n: int, size: int, step: int = 1, strength: int = 3, centre: int | None = None
) -> Colour:
    """A window of size x size taps ``step`` pixels apart about the middle of n x n pixels."""
    m, half = n // 2 if centre is None else centre, size // 2

    def colour(r: int, c: int) -> int | str:
        if (r, c) == (m, m):
            return QUERY
        dy, dx = abs(r - m), abs(c - m)
        inside = dy <= half * step and dx <= half * step and not dy % step and not dx % step
        return strength if inside else 0

    return colour


def shifted(n: int, size: int, row: int, column: int, step: int = 1) -> Colour:
    """The window of neighborhood attention, which is moved inwards at the border."""

    def taps(p: int) -> set[int]:
        line = list(range(p % step, n, step))
        i = line.index(p)
        start = min(max(i - size // 2, 0), max(len(line) - size, 0))
        return set(line[start : start + size])

    rows, columns = taps(row), taps(column)
    return lambda r, c: QUERY if at(r, c, row, column) else 3 * (r in rows and c in columns)


def everything(n: int, row: int = 4, column: int = 3, strength: int = 2) -> Colour:
    """The whole map."""
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
    """A stripe of long x short taps about the middle."""
    m = n // 2

    def colour(r: int, c: int) -> int | str:
        dy, dx = abs(r - m), abs(c - m)
        if upright:
            dy, dx = dx, dy
        return QUERY if r == c == m else 3 * (dx <= long // 2 and dy <= short // 2)

    return colour


# ---------------------------------------------------------------- the drawings


def van() -> Drawing:
    """Large kernel attention."""
    d = Drawing('Large kernel attention', 290)
    d.grid(50, 22, 23, around(23, 5), 150, '5 x 5, depthwise')
    d.grid(305, 22, 23, around(23, 7, 3), 150, '7 x 7 with dilation 3, depthwise')
    reach = lambda r, c: QUERY if r == c == 11 else 2
    d.grid(560, 22, 23, reach, 150, 'together: 23 x 23')
    x = d.flow(252, '(x)', 'depthwise\n5 x 5', 'depthwise 7 x 7\ndilation 3', '1 x 1', '×', '(y)')
    d.over(x[0], x[4], 252)
    return d


def lska() -> Drawing:
    """Large separable kernel attention."""
    d = Drawing('Large separable kernel attention', 290)
    sparse = lambda upright: (
        lambda r, c: (
            QUERY
            if r == c == 11
            else 3
            * (
                (c == 11 if upright else r == 11)
                and not (r + c - 22) % 3
                and max(abs(r - 11), abs(c - 11)) <= 9
            )
        )
    )
    d.grid(30, 22, 23, stripes(23, 5, 1, False), 150, '1 x 5')
    d.grid(213, 22, 23, stripes(23, 5, 1, True), 150, '5 x 1')
    d.grid(396, 22, 23, sparse(False), 150, '1 x 7, dilation 3')
    d.grid(579, 22, 23, sparse(True), 150, '7 x 1, dilation 3')
    x = d.flow(
        252, '(x)', '1 x 5', '5 x 1', '1 x 7\ndilation 3', '7 x 1\ndilation 3', '1 x 1', '×', '(y)'
    )
    d.over(x[0], x[6], 252)
    return d


def aa_resnet() -> Drawing:
    """Attention-augmented convolution."""
    d = Drawing('Attention-augmented convolution', 215)
    d.grid(30, 30, 9, around(9, 3), 130, 'convolution: 3 x 3')
    d.grid(185, 30, 9, everything(9), 130, 'attention: the whole map')
    d.text(360, 108, 'x', 14, weight='bold')
    d.path([(370, 103), (385, 103), (385, 65), (405, 65)])
    d.path([(370, 103), (385, 103), (385, 143), (405, 143)])
    d.box(465, 65, 116, '3 x 3 convolution')
    d.box(465, 143, 116, 'attention with\nrelative positions')
    d.path([(525, 65), (575, 65), (575, 85)])
    d.path([(525, 143), (575, 143), (575, 121)])
    d.box(600, 103, 100, 'concatenate\nchannels', SAND, 34)
    d.arrow(652, 103, 700, 103)
    d.text(715, 108, 'y', 14, weight='bold')
    return d


def sasa() -> Drawing:
    """Stand-alone self-attention."""
    d = Drawing('Stand-alone self-attention', 215)
    d.grid(30, 30, 11, around(11, 7), 140, 'a pixel and its 7 x 7 window')
    d.flow(
        85,
        '(q, k, v)',
        'q · (k + r(offset))\nfor the 49 pixels',
        'softmax',
        'sum of\nweights × v',
        '(y)',
        x=210,
    )
    d.text(470, 150, 'r: a vector for the row offset beside one for the column offset', 12, GREY)
    return d


def halonet() -> Drawing:
    """Blocked local attention."""
    d = Drawing('Blocked local attention with a halo', 235)

    def colour(r: int, c: int) -> int | str:
        if 4 <= r < 8 and 4 <= c < 8:
            return QUERY
        return 3 if 2 <= r < 10 and 2 <= c < 10 else 0

    d.grid(30, 22, 12, colour, 160, 'a block of queries, and its halo')
    for i in range(1, 3):
        d.parts.append(
            f'<path d="M{30 + i * 160 / 3:g},22 v160 M30,{22 + i * 160 / 3:g} h160" '
            f'stroke="{INK}" stroke-width="1.6" fill="none"/>'
        )
    d.flow(85, '(q)', 'q · k + q · r', 'softmax', 'sum of\nweights × v', '(y)', x=225)
    d.text(480, 150, 'all pixels of a block see the same keys: block + halo', 12, GREY)
    return d


def botnet() -> Drawing:
    """Bottleneck transformer block."""
    d = Drawing('Bottleneck transformer', 225)
    cross = lambda r, c: QUERY if at(r, c, 3, 5) else 2 + 2 * (r == 3 or c == 5)
    d.grid(30, 25, 9, cross, 150, 'every pixel to all, with tables\nof row and column offsets')
    x = d.flow(110, '(x)', '1 x 1', 'attention over\nthe whole map', '1 x 1', '+', '(y)', x=225)
    d.over(x[0], x[4], 110, 'shortcut')
    d.text(x[2], 160, 'in place of a 3 x 3 convolution', 12, GREY)
    return d


def gcnet() -> Drawing:
    """Global context block."""
    d = Drawing('Global context block', 225)
    weights = [[1, 1, 0, 1, 1], [1, 3, 4, 2, 1], [0, 4, 5, 3, 0], [1, 2, 3, 1, 0], [0, 0, 1, 0, 0]]
    d.grid(30, 30, 5, lambda r, c: weights[r][c], 130, 'one softmax for the image')
    x = d.flow(
        95,
        'weighted\nmean',
        '1 x 1\nC / r',
        'layer norm\nReLU',
        '1 x 1\nC',
        '+',
        '(y)',
        x=190,
        right=730,
    )
    d.arrow(164, 95, 187, 95)
    d.path([(95, 190), (95, 200), (x[4], 200), (x[4], 108)])
    d.text((95 + x[4]) / 2, 194, 'the vector is added at every position of x', 12, GREY)
    return d


def quadratic_attention() -> Drawing:
    """Quadratic attention."""
    d = Drawing('Quadratic attention', 235)
    for i, (centre, spread, caption) in enumerate(
        (
            ((2, 2), 2.2, 'a soft head'),
            ((3, 5), 1.2, 'sharper: its centre stays\nat an offset of the query'),
            ((3, 3), 0.3, 'a sharp head is\none tap of a convolution'),
        )
    ):
        d.grid(40 + i * 180, 25, 9, fading(9, centre, spread, 4, 4), 140, caption)
    nine = lambda r, c: QUERY if r == c == 4 else 5 * (abs(r - 4) < 2 and abs(c - 4) < 2)
    d.grid(590, 25, 9, nine, 140, 'nine sharp heads:\na 3 x 3 convolution')
    return d


def attention_modules() -> Drawing:
    """Channel and spatial gates."""
    d = Drawing('Attention modules', 250)
    x = d.flow(75, '(x)', 'mean over\nthe map', '1 x 1, ReLU, 1 x 1', 'sigmoid', '×', '(y)', x=170)
    d.over(x[0], x[4], 75, lift=38)
    d.text(80, 70, 'channel gate', 13, weight='bold')
    d.text(80, 88, 'SE, ECA, GE, CBAM', 11, GREY)
    x = d.flow(
        185, '(x)', 'mean and max\nover channels', '7 x 7 convolution', 'sigmoid', '×', '(y)', x=170
    )
    d.over(x[0], x[4], 185, lift=38)
    d.text(80, 180, 'spatial gate', 13, weight='bold')
    d.text(80, 198, 'CBAM', 11, GREY)
    d.text(455, 235, 'a gate multiplies: one number per channel, or one per position', 12, GREY)
    return d


def acmix() -> Drawing:
    """ACmix."""
    d = Drawing('ACmix', 240)
    d.grid(30, 35, 9, around(9, 7), 120, 'attention: 7 x 7')
    d.grid(165, 35, 9, around(9, 3), 120, 'convolution: 3 x 3')
    d.text(322, 113, 'x', 14, weight='bold')
    d.arrow(332, 108, 350, 108)
    d.box(400, 108, 96, 'three 1 x 1:\nq, k, v')
    d.path([(450, 108), (465, 108), (465, 60), (485, 60)])
    d.path([(450, 108), (465, 108), (465, 158), (485, 158)])
    d.box(550, 60, 126, 'attention in\nthe window')
    d.box(550, 158, 126, 'mix heads,\nshift, sum')
    d.path([(615, 60), (668, 60), (668, 95)])
    d.path([(615, 158), (668, 158), (668, 121)])
    d.text(640, 52, 'α', 14)
    d.text(640, 176, 'β', 14)
    d.dot(668, 108, '+')
    d.arrow(681, 108, 708, 108)
    d.text(722, 113, 'y', 14, weight='bold')
    d.text(440, 222, 'projections are computed once and used twice; α and β are learned', 12, GREY)
    return d


def nat() -> Drawing:
    """Neighborhood attention."""
    d = Drawing('Neighborhood attention', 220)
    d.grid(40, 25, 11, shifted(11, 5, 5, 5), 150, 'inside: the window around the pixel')
    d.grid(305, 25, 11, shifted(11, 5, 3, 10), 150, 'at the border: moved inwards')
    d.grid(570, 25, 11, shifted(11, 5, 0, 0), 150, 'in a corner: still k x k pixels')
    return d


def dinat() -> Drawing:
    """Dilated neighborhood attention."""
    d = Drawing('Dilated neighborhood attention', 220)
    d.grid(40, 25, 15, shifted(15, 3, 7, 7), 150, 'block 1: dilation 1')
    d.grid(305, 25, 15, shifted(15, 3, 7, 7, 4), 150, 'block 2: dilation 4')
    both = lambda r, c: (
        QUERY
        if r == c == 7
        else 2 * any(abs(r - a) < 2 and abs(c - b) < 2 for a in (3, 7, 11) for b in (3, 7, 11))
    )
    d.grid(570, 25, 15, both, 150, 'together')
    return d


def lesa() -> Drawing:
    """Locally enhanced self-attention."""
    d = Drawing('Locally enhanced self-attention', 240)
    d.grid(30, 35, 9, around(9, 3, strength=4), 120, 'local: 3 x 3')
    d.grid(165, 35, 9, everything(9, 4, 4), 120, 'context: all pixels')
    d.text(318, 113, 'x', 14, weight='bold')
    d.path([(328, 108), (342, 108), (342, 60), (362, 60)])
    d.path([(328, 108), (342, 108), (342, 158), (362, 158)])
    d.box(432, 60, 136, 'grouped convolution')
    d.box(432, 158, 136, 'attention')
    d.path([(502, 60), (660, 60), (660, 95)])
    d.arrow(502, 158, 572, 158)
    d.dot(586, 158, '×')
    d.box(586, 105, 60, 'gate', SAND, 30)
    d.arrow(586, 121, 586, 145)
    d.path([(530, 60), (530, 105), (553, 105)])
    d.path([(530, 158), (530, 112), (553, 112)])
    d.path([(599, 158), (660, 158), (660, 121)])
    d.dot(660, 108, '+')
    d.arrow(673, 108, 705, 108)
    d.text(720, 113, 'y', 14, weight='bold')
    d.text(
        500, 215, 'the gate decides at every position and channel how much context counts', 12, GREY
    )
    return d


def elsa() -> Drawing:
    """Enhanced local self-attention."""
    d = Drawing('Enhanced local self-attention', 230)
    taps = [[1, 2, 1, 3, 0], [2, 4, 2, 1, 1], [0, 5, 0, 3, 1], [1, 3, 4, 2, 0], [0, 1, 2, 1, 1]]
    own = lambda r, c: (
        QUERY if r == c == 4 else (taps[r - 2][c - 2] if abs(r - 4) < 3 and abs(c - 4) < 3 else 0)
    )
    d.grid(30, 30, 9, own, 140, 'weights of its own\nfor every pixel')
    d.flow(
        80,
        '(q, k)',
        'q × k at\nthe pixel',
        'convolution, GELU,\n1 x 1',
        'softmax over\nk x k taps',
        'sum of\nweights × v',
        '(y)',
        x=200,
    )
    d.text(
        465,
        140,
        'ghost head: each channel multiplies the weights of its head by a filter\n'
        'of its own, and adds another one',
        12,
        GREY,
    )
    return d


def evolving_attention() -> Drawing:
    """Evolving attention."""
    d = Drawing('Evolving attention', 250)
    for i, y in enumerate((70, 180)):
        d.text(55, y + 5, f'layer {i + 1}', 13, weight='bold')
        d.box(160, y, 96, 'q · k\n(+ positions)')
        d.box(620, y, 130, 'softmax, × v,\nbeside a convolution')
    d.arrow(210, 70, 550, 70)
    d.arrow(210, 180, 272, 180)
    d.dot(287, 180, '+')
    d.path([(287, 72), (287, 166)])
    d.text(297, 125, 'logits of the layer before', 12, GREY, 'start')
    d.box(420, 180, 130, '3 x 3 convolution,\nheads as channels', SAND)
    d.arrow(300, 180, 352, 180)
    d.arrow(487, 180, 551, 180)
    d.path([(320, 180), (320, 222), (520, 222), (520, 184)])
    d.text(420, 240, 'mixed with what was not convolved', 11, GREY)
    return d


def slak() -> Drawing:
    """Two stripes and a small kernel."""
    d = Drawing('Decomposed large kernels', 290)
    d.grid(50, 22, 25, stripes(25, 25, 3, False), 150, '5 x 51')
    d.grid(305, 22, 25, stripes(25, 25, 3, True), 150, '51 x 5')
    d.grid(560, 22, 25, around(25, 3), 150, '5 x 5')
    d.box(175, 252, 150, 'three depthwise kernels')
    d.arrow(253, 252, 300, 252)
    d.dot(314, 252, '+')
    d.flow(252, 'layer norm', '1 x 1, GELU, 1 x 1', '(y)', x=352, right=640)
    d.arrow(328, 252, 350, 252)
    d.text(60, 257, 'x', 14, weight='bold')
    d.arrow(70, 252, 98, 252)
    return d


def pelk() -> Drawing:
    """Peripheral convolution."""
    d = Drawing('Peripheral convolution', 260)
    widths = [10, 4, 2, 1, 1, 1, 1, 1, 2, 4, 10]
    side, total = 200, sum(widths)
    edges = [sum(widths[:i]) * side / total for i in range(len(widths) + 1)]
    for i, h in enumerate(widths):
        for j, w in enumerate(widths):
            level = max(h, w)
            fill = TEALS[{1: 5, 2: 4, 4: 3, 10: 1}[level]]
            d.rect(
                60 + edges[j],
                20 + edges[i],
                w * side / total,
                h * side / total,
                fill,
                PAPER,
                width=1.2,
            )
    d.rect(60 + edges[5], 20 + edges[5], side / total, side / total, QUERY, PAPER)
    d.text(160, 240, 'one weight for every box of taps', 12, GREY)
    d.text(500, 65, 'fine in the middle, coarse outside', 15, weight='bold')
    d.text(
        500,
        100,
        'as in an eye: each tap of the centre has a weight of its own,\n'
        'boxes outwards are 2, 4, 8, ... taps wide and share one',
        13,
        GREY,
    )
    d.text(
        500, 165, '51 x 51 taps:  13 x 13 = 169 weights\n101 x 101 taps:  17 x 17 = 289 weights', 13
    )
    d.text(500, 222, 'the sum over a box is computed once, not tap by tap', 12, GREY)
    return d


def replknet() -> Drawing:
    """Large dense kernels with a small one beside."""
    d = Drawing('Dense large kernels', 250)
    d.grid(40, 25, 31, lambda r, c: QUERY if r == c == 15 else 3, 170, 'training: 31 x 31 ...')
    d.grid(235, 110, 31, around(31, 5, strength=4), 85, '... and 5 x 5')
    d.text(350, 120, '=', 26)
    merged = lambda r, c: (
        QUERY if r == c == 15 else (5 if abs(r - 15) < 3 and abs(c - 15) < 3 else 3)
    )
    d.grid(385, 25, 31, merged, 170, 'deployed: one kernel')
    d.text(660, 80, 'depthwise', 14, weight='bold')
    d.text(
        660, 108, 'norms go into the\nkernels, and the small\nkernel into the large one', 12, GREY
    )
    return d


def qna() -> Drawing:
    """Learned queries."""
    d = Drawing('Query and attend', 240)
    d.grid(30, 30, 9, around(9, 3, strength=3), 140, 'window around each pixel')
    x = d.flow(
        120,
        '(k, v)',
        's = q · k',
        'exp(s) v\nand exp(s)',
        'depthwise\nconvolutions',
        'quotient',
        '(y)',
        x=215,
    )
    d.box(x[1], 45, 140, 'two learned queries', SAND)
    d.arrow(x[1], 66, x[1], 99)
    d.text(x[1] + 80, 50, 'the same at every pixel', 11, GREY, 'start')
    d.text(
        470,
        175,
        'a pixel has the same score in every window that it lies in:\n'
        'the sums of the softmax are convolutions',
        12,
        GREY,
    )
    return d


def hornet() -> Drawing:
    """Recursive gated convolution."""
    d = Drawing('Recursive gated convolution', 235)
    d.text(35, 120, 'x', 14, weight='bold')
    d.arrow(45, 115, 62, 115)
    d.box(110, 115, 92, '1 x 1, split')
    d.box(290, 185, 210, 'depthwise 7 x 7 (or a filter of\nthe whole map): q1, q2, q3', SAND)
    d.path([(110, 136), (110, 185), (182, 185)])
    d.arrow(158, 70, 238, 70)
    d.path([(110, 95), (110, 70), (158, 70)])
    d.text(180, 62, 'p (C / 4)', 12, GREY)
    previous = 252
    d.dot(previous, 70, '×')
    d.arrow(previous, 165, previous, 83)
    d.text(previous + 14, 130, 'q1', 12, GREY, 'start')
    for i, (x, channels) in enumerate(((430, 'C / 2'), (620, 'C'))):
        d.arrow(previous + 13, 70, x - 112, 70)
        d.box(x - 75, 70, 66, f'1 x 1\nto {channels}')
        d.arrow(x - 40, 70, x - 14, 70)
        d.dot(x, 70, '×')
        d.path([(396, 185), (x, 185), (x, 84)] if i else [(396, 180), (x, 180), (x, 84)])
        d.text(x + 8, 130, f'q{i + 2}', 12, GREY, 'start')
        previous = x
    d.arrow(633, 70, 655, 70)
    d.box(685, 70, 52, '1 x 1')
    d.arrow(712, 70, 728, 70)
    d.text(738, 75, 'y', 14, weight='bold')
    d.text(420, 225, 'each product raises the order of the interaction by one (here 3)', 12, GREY)
    return d


def mvitv2() -> Drawing:
    """Pooling attention."""
    d = Drawing('Pooling attention', 240)
    d.grid(30, 30, 8, lambda r, c: QUERY if at(r, c, 3, 5) else 0, 128, 'queries')
    d.grid(190, 62, 4, lambda r, c: 3, 64, 'pooled keys, values')
    y = 95
    d.text(300, y + 5, 'x', 14, weight='bold')
    for i, (name, fill) in enumerate((('q, pooled', SKY), ('k, pooled', SKY), ('v, pooled', SKY))):
        at_y = 45 + i * 50
        d.path([(310, y), (325, y), (325, at_y), (345, at_y)])
        d.box(390, at_y, 88, name, fill, 32)
    d.path([(436, 45), (470, 45), (470, 62), (490, 62)])
    d.path([(436, 95), (470, 95), (470, 78), (490, 78)])
    d.box(550, 70, 116, 'q · k + q · r\nsoftmax')
    d.path([(436, 145), (550, 145), (550, 134)])
    d.arrow(550, 90, 550, 106)
    d.dot(550, 120, '×')
    d.arrow(563, 120, 630, 120)
    d.dot(645, 120, '+')
    d.path([(455, 45), (455, 25), (645, 25), (645, 106)])
    d.text(660, 70, 'residual', 11, GREY, 'start')
    d.arrow(658, 120, 690, 120)
    d.text(703, 125, 'y', 14, weight='bold')
    d.text(
        490,
        205,
        'pooling: depthwise convolutions with a stride; r: row and column offsets',
        12,
        GREY,
    )
    return d


def vit() -> Drawing:
    """Plain backbone, windows, simple pyramid."""
    d = Drawing('Plain vision transformer for detection', 250)
    window = lambda r, c: QUERY if at(r, c, 1, 2) else 3 * (r < 4 and c < 4)
    d.grid(30, 30, 8, window, 130, 'most blocks: a window')
    d.grid(185, 30, 8, everything(8, 1, 2), 130, 'four blocks: everything')
    d.text(405, 50, 'one map at stride 16', 12, GREY)
    d.rect(355, 62, 100, 100, TEALS[2])
    for x, y, side, stride in (
        (545, 20, 96, 4),
        (545, 150, 60, 8),
        (635, 150, 36, 16),
        (700, 150, 20, 32),
    ):
        d.rect(x, y, side, side, TEALS[2])
        d.text(x + side / 2, y + side + 14, f'stride {stride}', 11, GREY)
    d.arrow(465, 100, 535, 75)
    d.arrow(465, 125, 535, 170)
    d.text(405, 190, 'simple pyramid: transposed\nconvolutions, nothing, pooling', 12, GREY)
    return d


def maxvit() -> Drawing:
    """Block and grid attention."""
    d = Drawing('Multi-axis attention', 250)
    block = lambda r, c: QUERY if at(r, c, 2, 5) else 3 * (r < 4 and 4 <= c < 8)
    grid = lambda r, c: QUERY if at(r, c, 2, 5) else 3 * (r % 4 == 2 and c % 4 == 1)
    d.grid(100, 20, 16, block, 150, 'block attention: a window')
    d.grid(500, 20, 16, grid, 150, 'grid attention: as many pixels, far apart')
    d.flow(220, '(x)', 'MBConv', 'block attention', 'MLP', 'grid attention', 'MLP', '(y)')
    return d


def coatnet() -> Drawing:
    """Convolution stages, then attention stages."""
    d = Drawing('CoAtNet', 240)
    d.grid(90, 20, 9, around(9, 3), 130, 'early stages: 3 x 3')
    d.grid(
        530,
        20,
        9,
        fading(9, (4, 4), 3.2, 4, 4),
        130,
        'late stages: all pixels, logit q · k + w(offset)',
    )
    d.flow(212, '(image)', 'stem', 'MBConv', 'MBConv', 'attention', 'attention', '(maps)')
    return d


def cvt() -> Drawing:
    """Convolutional projections."""
    d = Drawing('Convolutional projection', 240)
    d.grid(30, 30, 9, around(9, 3), 130, 'q: 3 x 3, stride 1')
    strided = lambda r, c: 3 if not r % 2 and not c % 2 else 0
    d.grid(185, 30, 9, strided, 130, 'k, v: at every second pixel')
    d.text(345, 100, 'x', 14, weight='bold')
    for i, name in enumerate(
        ('q: depthwise\n3 x 3', 'k: depthwise\n3 x 3, stride 2', 'v: depthwise\n3 x 3, stride 2')
    ):
        y = 40 + i * 56
        d.path([(355, 95), (370, 95), (370, y), (390, y)])
        d.box(445, y, 108, name)
        d.path([(500, y), (525, y), (525, 96), (545, 96)] if i != 1 else [(500, 96), (545, 96)])
    d.box(600, 96, 106, 'attention over\nthe whole map')
    d.arrow(655, 96, 700, 96)
    d.text(714, 101, 'y', 14, weight='bold')
    d.text(
        450,
        218,
        'convolutions take the place of linear projections and of position embeddings',
        12,
        GREY,
    )
    return d


def levit() -> Drawing:
    """LeViT."""
    d = Drawing('LeViT', 240)
    sides = (96, 66, 44)
    for x, side, n in zip((60, 300, 520), sides, (14, 7, 4), strict=True):
        d.grid(x, 30 + (96 - side) / 2, n, everything(n, n // 2, n // 2), side, f'{n} x {n}')
    d.text(228, 82, 'attention that\nshrinks the map', 11, GREY)
    d.arrow(170, 105, 288, 105)
    d.text(443, 82, 'again', 11, GREY)
    d.arrow(380, 105, 505, 105)
    d.text(655, 70, 'logit: q · k +\nb(|dy|, |dx|)', 13)
    d.flow(
        205,
        '(image)',
        'four 3 x 3\nstride 2',
        'attention,\nMLP',
        'shrinking\nattention',
        'attention,\nMLP',
        '...',
        '(maps)',
    )
    return d


DRAWINGS = (
    *(van, lska, aa_resnet, sasa, halonet, botnet, gcnet, quadratic_attention, attention_modules),
    *(acmix, nat, dinat, lesa, elsa, evolving_attention, slak, pelk, replknet, qna, hornet),
    *(mvitv2, vit, maxvit, coatnet, cvt, levit),
)


def main(argv: list[str] | None = None) -> int:
    """Write or check the drawings; 1 if a check found one out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='write nothing')
    check = parser.parse_args(argv).check
    stale = 0
    for draw in DRAWINGS:
        file, text = FOLDER / f'{draw.__name__}.svg', draw().svg()
        if file.exists() and file.read_text() == text:
            continue
        stale += 1
        if not check:
            FOLDER.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        print('out of date:' if check else 'wrote', file.name)
    return int(check and stale > 0)


if __name__ == '__main__':
    sys.exit(main())
