"""Checks of the label maps of segmentations before a run."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.datasets import dataset_class, paths_of
from hybrid_mm.run.registered import arguments


def check_label_maps(
    dataset: dict[str, Any], classes: list[str], loader: str, samples: int = 8
) -> None:
    """Check the labels in a few label maps, spread over the folder."""
    folder = paths_of(dataset).get('seg_map_path')
    if folder is None or not os.path.isdir(folder):
        return
    import mmcv  # takes a second, and only segmenters have label maps

    meta = {**arguments(dataset_class(dataset)), **dataset}
    suffix = meta.get('seg_map_suffix', '.png')
    files = sorted(path for path in Path(folder).rglob(f'*{suffix}'))
    if not files:
        raise UserError(f'{loader}: {folder} has no label maps *{suffix}')
    shifted = bool(meta.get('reduce_zero_label', False))
    ignored = meta.get('ignore_index', 255)
    high = len(classes) if shifted else len(classes) - 1
    for path in files[:: max(1, len(files) // samples)][:samples]:
        labels = mmcv.imread(str(path), flag='unchanged', backend='pillow')
        if labels is None or labels.ndim != 2:
            shape = None if labels is None else labels.shape
            raise UserError(
                f'{loader}: {path} is not a label map (one channel); its shape is {shape}'
            )
        wrong = [int(v) for v in np.unique(labels) if v > high and v not in (ignored, 255)]
        if wrong:
            raise UserError(
                f'{loader}: {path} has the label {wrong[0]}; {len(classes)} classes with '
                f'reduce_zero_label={shifted} allow 0..{high} and {ignored} (ignored)'
            )
