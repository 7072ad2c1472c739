# ruff: noqa: RUF001, E731 (signs of multiplication; colours of pixels as lambdas)
"""Attention to a window."""

from drawings.canvas import GREY, INK, QUERY, SAND, Drawing
from drawings.pixels import around, shifted


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
