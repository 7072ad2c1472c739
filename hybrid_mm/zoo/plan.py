"""Input size, schedule length and learning rate of a new config, chosen from the data."""

import math
from dataclasses import dataclass

from hybrid_mm.errors import UserError
from hybrid_mm.zoo.splits import UserData

SCRATCH = 3
"""How many times as long a training from random weights is."""
LONGEST = 10_000_000
"""Iterations; no training is longer."""


@dataclass
class Plan:
    """Settings that are chosen from the data; the written config explains them in comments.

    Attributes:
        scale: (long, short) side that images are resized to.
        crop: (height, width) of training crops (label maps).
        batch: Images per step.
        steps: Length in epochs or iterations.
        rate: Learning rate.
        rule: How the length was chosen, for the comment in the config.
        by_epoch: Whether the length counts epochs (boxes, unless iterations were asked for).
        iterations: Length in iterations.
    """

    scale: tuple[int, int]
    crop: tuple[int, int] | None
    batch: int
    steps: int
    rate: float
    rule: str = ''
    by_epoch: bool = False
    iterations: int = 0


def _round(value: float, step: int = 32) -> int:
    return max(step, round(value / step) * step)


def make_plan(
    data: UserData,
    batch: int | None = None,
    scale: tuple[int, int] | None = None,
    pretrained: bool = True,
    iterations: int | None = None,
    epochs: int | None = None,
) -> Plan:
    """Choose input size, length and learning rate.

    Args:
        data: The data set.
        batch: Images per step; 2 for COCO and 4 for label maps if None.
        scale: (long, short) side to resize images to.
        pretrained: Whether the backbone starts from weights. From random ones, training is three
            times as long, as "Rethinking ImageNet Pre-training" (arXiv 1811.08883) finds that it
            must be on COCO.
        iterations: Length; chosen from the data if this and ``epochs`` are None.
        epochs: Length; for label maps, whose runs count iterations, as many as see the images so
            often.

    Raises:
        UserError: The length is no sensible one.
    """
    times = 1 if pretrained else SCRATCH
    longer = '' if pretrained else f'; {SCRATCH} times that from random weights'
    long, short = max(data.size), min(data.size)
    count = data.splits['train'].count
    if data.layout == 'coco':
        batch = batch or 2
        if scale is None:
            target = min(800, max(320, _round(short)))
            scale = min(1333, _round(long * target / short)), target
        # at least COCO's 12 epochs; small data sets get 10,000 steps, but at most 100 epochs
        steps = times * max(12, min(100, math.ceil(10_000 * batch / count)))
        rule = (
            'the 12 epochs of COCO; for small data sets more, up to 10,000 steps, but at most 100 '
            f'epochs{longer}'
        )
        crop = None
        if epochs is not None:
            steps = epochs
        by_epoch = iterations is None
        total = steps * math.ceil(count / batch) if by_epoch else iterations
    else:
        batch = batch or 4
        if scale is None:
            target = min(1024, max(256, short))
            scale = min(2048, round(long * target / short)), target
        side = max(32, min(512, scale[1] // 32 * 32))
        crop = side, max(32, min(512, scale[0] // 32 * 32))
        # 100 epochs, but at least 4,000 steps and at most ADE20K's 160,000
        steps = times * max(4_000, math.ceil(100 * count / batch / 1000) * 1000)
        steps = min(160_000, steps)
        rule = f'100 epochs, but at least 4,000 steps{longer}; at most 160,000 steps'
        by_epoch = False
        total = math.ceil(epochs * count / batch) if epochs is not None else iterations or steps
    if iterations is not None or epochs is not None:
        asked = f'--iterations {iterations}' if epochs is None else f'--epochs {epochs}'
        rule = f'{asked}, as asked for'
        if total > LONGEST:
            raise UserError(f'{asked} are {total:,} iterations; expected at most {LONGEST:,}')
    rate = 1e-4 * math.sqrt(batch / 16)
    return Plan(scale, crop, batch, steps if by_epoch else total, rate, rule, by_epoch, total)
