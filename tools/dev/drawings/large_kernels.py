# ruff: noqa: RUF001, E731 (signs of multiplication; colours of pixels as lambdas)
"""Networks with large kernels."""

from drawings.canvas import GREY, PAPER, QUERY, SAND, TEALS, Drawing
from drawings.pixels import around, stripes


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
