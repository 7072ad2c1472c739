"""What happens when in a run of a given length: warm-up, decay, evaluation, checkpoints, log."""

import math
from dataclasses import dataclass

from hybrid_mm.zoo.plan import Plan
from hybrid_mm.zoo.splits import UserData

SHORTEST = 10
"""Iterations from which on a run warms up."""
LOG = 50
"""Largest number of iterations between two lines of the log."""


@dataclass(frozen=True)
class Timetable:
    """Points in a run, as the settings of MMEngine count them.

    Attributes:
        warmup: Iterations in which the learning rate rises; 0 for none.
        milestones: Ends of the parts of the run with a constant rate (boxes); may be empty.
        by_epoch: Whether the milestones count epochs, not iterations.
        interval: Epochs or iterations, as the loop counts, between evaluations and checkpoints.
        log: Iterations between lines of the log.
        why: The arithmetic, for lines of a comment.
    """

    warmup: int
    milestones: list[int]
    by_epoch: bool
    interval: int
    log: int
    why: list[str]


def timetable(data: UserData, plan: Plan) -> Timetable:
    """Derive the points from the length of a run."""
    boxes = data.layout == 'coco'
    total = plan.iterations
    share, most = (20, 1000) if boxes else (10, 1500)
    # a warm-up of one iteration would never leave the first rate
    warmup = min(most, max(2, total // share)) if total >= SHORTEST else 0
    by_epoch = plan.by_epoch and plan.steps >= 12
    length = plan.steps if by_epoch else total
    parts = {length * part // 12 for part in (8, 11)} - {0}
    milestones = sorted(parts) if boxes else []
    times, limit = 12 if boxes else 10, ''
    if not plan.by_epoch:
        val = data.splits['val'].count
        affordable = max(1, total * plan.batch // val)
        if affordable < times:
            times, limit = (
                affordable,
                f', or less often, to evaluate ({val} images) less than train',
            )
    interval = max(1, plan.steps // times if plan.by_epoch else math.ceil(plan.steps / times))
    log = min(LOG, max(1, total // 10))
    why = [f'No warm-up in less than {SHORTEST} iterations.']
    if warmup:
        part = f'{_ORDINALS[share]} of the run, at most {most:,}'
        why = [f'Warm-up in the first {warmup:,} iterations: a {part}.']
    if milestones:
        places = ' and '.join(f'{m:,}' for m in milestones)
        unit = 'epochs' if by_epoch else 'iterations'
        why.append(f'A tenth of the rate after {places} of {length:,} {unit}: 8 and 11 twelfths.')
    elif not boxes:
        why[0] += ' Then the rate falls linearly to 0.'
    unit = 'epoch' if plan.by_epoch else 'iteration'
    every = f'{interval:,} {unit}s' if interval > 1 else unit
    part = 'twelfth' if boxes else 'tenth'
    why.append(f'Evaluation and checkpoint every {every}, and at the end: each {part}{limit}.')
    if log < LOG:
        why.append(f'A line in the log every {log}: each tenth.')
    return Timetable(warmup, milestones, by_epoch, interval, log, why)


_ORDINALS = {10: 'tenth', 20: 'twentieth'}


def passes(data: UserData, plan: Plan) -> str:
    """How often a run sees the images, as '25 epochs' or '0.65 epochs'."""
    if plan.by_epoch:
        number = str(plan.steps)
    else:
        epochs = plan.iterations * plan.batch / data.splits['train'].count
        number = f'{epochs:,.0f}' if epochs >= 10 else f'{epochs:.2g}'
    return f'{number} epoch{"s" * (number != "1")}'
