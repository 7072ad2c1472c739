# ruff: noqa: RUF001, E731 (signs of multiplication; colours of pixels as lambdas)
"""Attention to the whole map, and modules for ResNets."""

from drawings.canvas import GREY, QUERY, SAND, Drawing
from drawings.pixels import around, at, everything, fading


def botnet() -> Drawing:
    """Bottleneck transformer block."""
    d = Drawing('Bottleneck transformer', 225)
    cross = lambda r, c: QUERY if at(r, c, 3, 5) else 2 + 2 * (r == 3 or c == 5)
    d.grid(30, 25, 9, cross, 150, 'every pixel to all, with tables\nof row and column offsets')
    x = d.flow(110, '(x)', '1 x 1', 'attention over\nthe whole map', '1 x 1', '+', '(y)', x=225)
    d.over(x[0], x[4], 110, 'shortcut')
    d.text(x[2], 160, 'in place of a 3 x 3 convolution', 12, GREY)
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
