"""Tasks for processes of the supervisor, which need nothing but Python."""

import os
import sys
import time

from hybrid_mm.benchmarks.gpu.task import Failed, Skipped, Task


def right():
    print('libraries print what they like')
    return 'fine', dict(error=0.5)


def wrong():
    raise Failed('off by 1.0', error=1.0)


def raises():
    raise ValueError('a\nmistake')


def impossible():
    raise Skipped('no GPU')


def crashes():
    print('CUDA error: an illegal memory access', file=sys.stderr, flush=True)
    os.abort()


def hangs():
    time.sleep(60)
    return '', {}


def tasks(options):
    found = [right, crashes, wrong, hangs, raises, impossible]
    seconds = {hangs: 0.5}
    return [Task(f.__name__, f, seconds.get(f, 20.0), alone=f is raises) for f in found]
