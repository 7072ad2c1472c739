"""Predictions drawn on images that are no pictures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from hybrid_mm.data.multichannel import PICTURE_SUFFIXES
from hybrid_mm.registry import HOOKS


@HOOKS.register_module()
class PictureHook(Hook):
    """Visualization hook for images of any number of channels.

    Such a hook of OpenMMLab decodes the file of an image and gives the drawing its name. Its
    ``backend_args`` can make a picture of a file (:class:`.data.multichannel.Pictures`), but an
    array or TIFF file would be written in its own format. Here it gets names that end in ``.png``.

    Args:
        inner: The hook.
    """

    priority = 'NORMAL'

    def __init__(self, inner: dict[str, Any]) -> None:
        self.inner: Any = HOOKS.build(inner)

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = 'train',
    ) -> None:
        """Draw as the hook does after a batch of a validation or test."""
        if mode != 'train':
            with _as_png(outputs):
                getattr(self.inner, f'after_{mode}_iter')(runner, batch_idx, data_batch, outputs)


@contextmanager
def _as_png(samples: Sequence[Any]) -> Iterator[None]:
    """Context in which the images of samples have names of pictures."""
    paths = [str(sample.img_path) for sample in samples]
    for sample, path in zip(samples, paths, strict=True):
        if not path.lower().endswith(PICTURE_SUFFIXES):
            sample.set_metainfo(dict(img_path=f'{path}.png'))
    try:
        yield
    finally:
        for sample, path in zip(samples, paths, strict=True):
            sample.set_metainfo(dict(img_path=path))
