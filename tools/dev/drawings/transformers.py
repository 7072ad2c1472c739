# ruff: noqa: RUF001, E731 (signs of multiplication; colours of pixels as lambdas)
"""Transformers with convolution."""

from drawings.canvas import GREY, QUERY, SKY, TEALS, Drawing
from drawings.pixels import around, at, everything, fading


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
