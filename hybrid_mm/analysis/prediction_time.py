"""Prediction on photographs by whole detectors, beside MMDetection's ``DetInferencer``.

Both read the same files with the same config and weights and must find the same objects. What the
detector computes, with its selection of boxes and its masks, is measured within the whole: the rest
is decoding, the test pipeline and the conversion of results. The weights are random ones with which
a detector finds 100 objects in an image, which trained ones seldom do. Times are those of the
process on its CPUs.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from hybrid_mm.apis import Predictor
from hybrid_mm.benchmarks.core import DisagreementError, in_turn, medians_and_ratios
from hybrid_mm.errors import UserError
from hybrid_mm.export.random_weights import vary_outputs
from hybrid_mm.run.config import without_init_cfg
from hybrid_mm.run.config_folder import installed_configs

PACKAGES = ('mmdet', 'mmcv')
CONFIGS = ('van/retinanet_van-b0_fpn_1x_coco', 'van/mask-rcnn_van-b0_fpn_1x_coco')
HEAD = ('config', 'with', 's / image', 'x', 'rest ms / image', 'share of the rest')
_SIZE, _PHOTOS = (480, 640), 2  # rows and columns of a photograph as COCO has them
_RARE = 8.0  # that scores of RetinaNet's places are lower before the sigmoid: few are objects


class _Timed:
    """Seconds that a model's own forward pass takes, summed up."""

    def __init__(self, model: nn.Module) -> None:
        self.seconds = 0.0
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self.since = time.process_time()

    def _end(self, *_: Any) -> None:
        self.seconds += time.process_time() - self.since


def tables(
    wanted: Callable[[str], bool], rounds: int, seconds: float, quick: bool
) -> Iterator[list[str]]:
    """Measure the configs; yield the lines of a table in Markdown after each.

    Args:
        wanted: Whether a config is measured.
        rounds: Rounds at most.
        seconds: Time of a config; at least three rounds are run, unless ``rounds`` is less.
        quick: Small photographs, to try the tool.

    Raises:
        DisagreementError: Other objects are found.
        UserError: MMDetection is not installed.
    """
    try:
        from mmdet.apis import DetInferencer
        from mmdet.datasets import CocoDataset
    except ImportError as error:
        raise UserError(f'predict needs MMDetection: {error}') from error
    lines = ['| ' + ' | '.join(HEAD) + ' |', '|' + '---|' * len(HEAD)]
    for name in filter(wanted, CONFIGS):
        with tempfile.TemporaryDirectory() as folder:
            cfg = Config.fromfile(installed_configs() / f'{name}.py')
            if quick:
                cfg.test_dataloader.dataset.pipeline[1].scale = (128, 96)
            config, weights = Path(folder) / 'config.py', Path(folder) / 'weights.pth'
            cfg.dump(config)
            meta = dict(dataset_meta=CocoDataset.METAINFO)
            torch.save(dict(state_dict=_weights(cfg), meta=meta), weights)
            files = _photos(Path(folder), (96, 128) if quick else _SIZE)
            ours = Predictor(config, weights, device='cpu')
            theirs = DetInferencer(str(config), str(weights), device='cpu', show_progress=False)
            lines += _compared(name, ours, theirs, files, rounds, seconds)
        yield lines


def _weights(cfg: Config) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(without_init_cfg(cfg.model))
    vary_outputs(model)
    if hasattr(getattr(model, 'bbox_head', None), 'retina_cls'):
        model.bbox_head.retina_cls.bias.data -= _RARE
    return model.state_dict()


def _photos(folder: Path, size: tuple[int, int]) -> list[str]:
    """Files of smooth noise, which take as long to decode as photographs."""
    draw, files = np.random.default_rng(0), []
    for number in range(_PHOTOS):
        coarse = draw.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
        image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
        files.append(str(folder / f'{number}.jpg'))
        cv2.imwrite(files[-1], image)
    return files


def _compared(
    name: str, ours: Predictor, theirs: Any, files: list[str], rounds: int, seconds: float
) -> list[str]:
    """Lines of a config."""
    timed = dict(ours=_Timed(ours.model), DetInferencer=_Timed(theirs.model))
    runs = dict(
        ours=lambda: ours(files),
        DetInferencer=lambda: theirs(files, no_save_vis=True)['predictions'],
    )
    for found, expected in zip(runs['ours'](), runs['DetInferencer'](), strict=True):
        given = np.array(expected['scores']), np.array(expected['bboxes'])
        for a, b in zip((found.scores, found.boxes), given, strict=True):
            if len(a) != len(b) or not np.allclose(a, b, rtol=1e-4, atol=1e-3):
                raise DisagreementError(
                    f'{name}: DetInferencer finds other objects in {found.name}'
                )

    rest: dict[tuple[str, str], list[float]] = {('', who): [] for who in runs}

    def once(mode: str, who: str) -> float:
        start, before = time.process_time(), timed[who].seconds
        runs[who]()
        taken = time.process_time() - start
        rest[mode, who].append(taken - (timed[who].seconds - before))
        return taken

    *_, samples = in_turn(once, [''], list(runs), rounds, warm_up=False, seconds_at_most=seconds)
    whole, ratios = medians_and_ratios(samples, 'ours')
    others, _ = medians_and_ratios(rest, 'ours')
    return [
        f'| {name} | {who} | {whole["", who] / len(files):.2f} | {ratios["", who]:.2f} '
        f'| {others["", who] / len(files) * 1e3:.0f} | {others["", who] / whole["", who]:.1%} |'
        for who in runs
    ]
