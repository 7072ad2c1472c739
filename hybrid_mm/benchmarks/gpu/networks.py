"""Every family of networks, with one block in each stage."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from hybrid_mm.benchmarks.gpu import modules
from hybrid_mm.benchmarks.gpu.compare import DTYPES, HALF, name_of
from hybrid_mm.benchmarks.gpu.task import Failed, Options, Task
from hybrid_mm.zoo.families import build, families, shortened

_TINY, _SMALL = (1, 3, 64, 64), (2, 3, 224, 256)
# those that are also compiled, and captured in CUDA graphs: windows, blocks, large kernels
_MODES = {'CUDA graph': ('NAT', 'HaloNet', 'PeLK'), 'compiled': ('NAT', 'HaloNet', 'PeLK')}
_FIRST = ('NAT', 'HaloNet', 'PeLK', 'SLaK', 'CoAtNet', 'SAN', 'ACmixResNet', 'ELSASwin')


def tasks(options: Options) -> Iterator[Task]:
    """One task for a family, in all types; some networks compiled and in CUDA graphs after that."""
    for name, config in families().items():
        order = 5 if name in _FIRST else 7
        run = partial(check, config, options)
        yield Task(f'networks/{name}', run, 150.0, order=order)
    for mode, names in _MODES.items():
        for name in names:
            run = partial(check, families()[name], options, (HALF,), mode)
            order = 7.5 if mode == 'CUDA graph' else 9
            yield Task(f'networks/{name}/{mode}', run, 240.0, order=order)


def check(
    config: dict,
    options: Options,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    mode: str = 'eager',
) -> tuple[str, dict[str, Any]]:
    """Compare a network with its plain formulation in several types.

    Args:
        config: Config of the backbone.
        options: Device, and whether the image is tiny.
        dtypes: Types of autocast.
        mode: 'eager', 'compiled' or 'CUDA graph'.

    Raises:
        Failed: A difference, or a kernel that did not run.
    """
    short = shortened(config)
    shape = _TINY if options.dry else _SMALL
    texts, figures, wrong = [], {}, False
    for dtype in dtypes:
        try:
            text, found = modules.check(partial(build, short), shape, options, dtype, mode)
        except Failed as failure:
            text, found, wrong = str(failure), failure.figures, True
        texts.append(f'{name_of(dtype)} {text}')
        figures[name_of(dtype)] = found
    if wrong:
        raise Failed('; '.join(texts), **figures)
    return '; '.join(texts), figures
