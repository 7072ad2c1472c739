"""Mean and standard deviation of any number of channels, for data preprocessors of OpenMMLab."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ['AnyChannels']


class AnyChannels(nn.Module):
    """Mixin for a data preprocessor: ``mean`` and ``std`` have a value for each channel.

    MMEngine's ``ImgDataPreprocessor`` takes one or three values. One value is for all channels.

    Args:
        mean: Mean of each channel, in the units of the loaded images; None to leave them as they
            are.
        std: Standard deviation of each channel, positive.
        kwargs: Those of the data preprocessor.

    Raises:
        ValueError: The numbers of values differ, a value is no sensible one, or blue and red are to
            be exchanged in images that do not have three channels.
    """

    keeps_order = True
    """Whether images have the order of their files, also three channels: red, green, blue."""

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        if (mean is None) != (std is None):
            raise ValueError(f'{name} needs both mean and std, or none; got {mean} and {std}')
        if mean is None or std is None:
            super().__init__(**kwargs)
            return
        if len(mean) != len(std) or not len(mean):
            raise ValueError(
                f'mean and std of {name} need a value for each channel; they have {len(mean)} and '
                f'{len(std)}'
            )
        wrong = [s for s in std if not (math.isfinite(s) and s > 0)]
        wrong += [m for m in mean if not math.isfinite(m)]
        if wrong:
            raise ValueError(
                f'mean of {name} must be finite, and std positive; got {wrong[0]} (std of a '
                'channel that is constant: 1)'
            )
        for key in ('bgr_to_rgb', 'rgb_to_bgr'):
            if kwargs.get(key) and len(mean) != 3:
                raise ValueError(
                    f'{key}=True of {name} is for three channels, mean has {len(mean)}; set it to '
                    'False, and the order of the channels with channels=[...] of '
                    'hybrid_mm.LoadMultichannelImage'
                )
        super().__init__(mean=mean[:1], std=std[:1], **kwargs)
        for key, values in (('mean', mean), ('std', std)):
            tensor = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(key, tensor, persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict | list:
        """Prepare a batch, whose images must have as many channels as there are values.

        Args:
            data: ``inputs``, images (C, H, W) or a tensor (N, C, H, W), and ``data_samples``.
            training: Whether the batch is trained.

        Raises:
            ValueError: An image has another number of channels.
        """
        mean = getattr(self, 'mean', None)
        if mean is not None and mean.shape[0] > 1:
            for image in _images(data):
                if image.shape[-3] != mean.shape[0]:
                    raise ValueError(
                        f'an image has {image.shape[-3]} channels, mean and std of '
                        f'{type(self).__name__} {mean.shape[0]} values'
                    )
        return super().forward(data, training)


def _images(data: Any) -> Iterable[torch.Tensor]:
    inputs = data['inputs'] if isinstance(data, dict) else data[0]
    return [inputs] if isinstance(inputs, torch.Tensor) else inputs
