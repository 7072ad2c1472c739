"""What ``tools/analysis/confusion_matrix.py`` does once its arguments are read."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import pyplot

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.data import check_data
from hybrid_mm.run.config import TASKS, load_config, require, task_of, with_options
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_folder
from hybrid_mm.run.predictions import SUFFIXES
from hybrid_mm.run.quiet import quietly
from hybrid_mm.run.upstream import run_upstream

_SIDE = 12_000
"""Pixels of the longer side of the picture, at most."""


@quietly
def run(args: argparse.Namespace, others: list[str]) -> None:
    """Run the script of the config's library, which draws confusion_matrix.png."""
    cfg = load_config(args.config, args.cfg_options)
    if not os.path.exists(args.predictions):
        raise UserError(f'{args.predictions} does not exist; tools/test.py --out writes it')
    require(cfg, 'test_dataloader.dataset')
    task = task_of(cfg)
    if task == 'pose':
        raise UserError('a confusion matrix compares classes, and keypoints have none')
    if os.path.isdir(args.predictions) != (task == 'segmentation'):
        expected = 'a folder of label maps' if task == 'segmentation' else 'a pickle'
        raise UserError(f'{args.predictions}: expected {expected}, which tools/test.py --out wrote')
    if task != 'segmentation' and not args.predictions.endswith(SUFFIXES):
        raise UserError(f'{args.predictions}: expected a name that ends with .pkl or .pickle')
    check_output_folder(args.out, 'out')
    check_data(cfg, 'test_dataloader')
    if task == 'classification':
        os.makedirs(args.out, exist_ok=True)
        picture = os.path.join(args.out, 'confusion_matrix.png')
        places = [args.predictions, '--show-path', picture]
    else:
        places = [args.predictions, args.out]
    script = 'analysis_tools/confusion_matrix.py'
    scripts = dict.fromkeys(TASKS, script)
    try:
        with bounded_pictures():
            run_upstream(cfg, scripts, with_options(cfg, [*places, *others], args.cfg_options))
    except (AssertionError, AttributeError, KeyError, IndexError, TypeError, OSError) as error:
        reason = f'{type(error).__name__}: {error}'.rstrip(': ')
        raise UserError(
            f'{args.predictions} cannot be used ({reason}); is it of the test data set of '
            f'{args.config}?'
        ) from error
    print()  # ends the line of progress
    wrote(os.path.join(args.out, 'confusion_matrix.png'))


@contextmanager
def bounded_pictures() -> Iterator[None]:
    """Lower the resolution of figures that are large.

    The scripts draw half an inch or two per class at 180 or 300 dpi, which is 26 GB for the 150
    classes of ADE20K.
    """
    subplots = pyplot.subplots

    def bounded(*args: Any, **kwargs: Any) -> Any:
        figure, axes = subplots(*args, **kwargs)
        figure.set_dpi(min(figure.get_dpi(), _SIDE / max(figure.get_size_inches())))
        return figure, axes

    pyplot.subplots = bounded
    try:
        yield
    finally:
        pyplot.subplots = subplots
