"""Size to which the test pipeline of a config brings its images."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmengine.config import Config

LONGEST = 2.5  # times the shorter side: a larger bound of the longer one limits nothing


class PipelineSize(NamedTuple):
    """What the last resize or crop of a test pipeline says.

    Attributes:
        width: Of the images; with ``keeps_ratio`` the bound of the longer side.
        height: Of the images; with ``keeps_ratio`` the bound of the shorter side.
        keeps_ratio: Whether the size also depends on the shape of an image.
    """

    width: int
    height: int
    keeps_ratio: bool

    def expected(self, divisor: int = 1) -> tuple[int, int]:
        """Height and width of a photo in landscape format, padded to multiples of ``divisor``.

        They are the two bounds, or a square of the shorter side if the other only excludes images
        that are no photos, as 2048 x 512 does.
        """
        height, width = self.height, self.width
        if self.keeps_ratio:
            height, width = sorted((height, width))
            width = width if width <= LONGEST * height else height
        return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor


def pipeline_size(cfg: Config) -> PipelineSize | None:
    """Size in the test pipeline of a config; None if there is no number."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    found: Any = None
    keeps_ratio = False
    for step in dataset.get('pipeline') or cfg.get('test_pipeline') or ():
        kind = step.get('type')
        kind = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
        if kind.endswith('Resize') and step.get('scale'):
            found, keeps_ratio = step['scale'], bool(step.get('keep_ratio'))
        elif kind.endswith('CenterCrop'):
            found, keeps_ratio = step.get('crop_size'), False
    if isinstance(found, int):
        return PipelineSize(found, found, keeps_ratio)
    if not isinstance(found, Sequence) or len(found) != 2:
        return None
    return PipelineSize(int(found[0]), int(found[1]), keeps_ratio)
