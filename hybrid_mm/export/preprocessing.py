"""The first part of an end-to-end graph: from pixels to what the network takes."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_mm.errors import UserError
from hybrid_mm.ops.export import ceil_div

__all__ = ['INPUT_TYPES', 'Preparation', 'channels_of']

InputType = Literal['uint8', 'float']
INPUT_TYPES: tuple[InputType, ...] = ('uint8', 'float')


class Preparation(nn.Module):
    """Order of the channels, normalisation and padding as a data preprocessor does them.

    Args:
        preprocessor: Data preprocessor of an OpenMMLab model; it normalises before it pads.
        input_type: 'uint8' for images (N, H, W, C), 'float' for (N, C, H, W); both from 0 to 255,
            three channels in the order red, green, blue.
        keeps_order: Whether the test pipeline loads channels in the order of files, as
            ``LoadMultichannelImage`` does; by default whether the preprocessor is one for those.

    Attributes:
        keeps_order: Whether the channels are in the order of files, whatever it is.
        divisor: Height and width are padded to multiples of this.
        least: Height and width that an image is padded to at least, or None.
        takes_bgr: Whether the network takes three channels in the order blue, green, red.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        preprocessor: Any,
        input_type: InputType = 'uint8',
        keeps_order: bool | None = None,
    ) -> None:
        super().__init__()
        self.input_type = input_type
        # images that are read in the order blue, green, red are turned around by the preprocessor,
        # unless the network takes them as they are
        turned = getattr(
            preprocessor, '_channel_conversion', getattr(preprocessor, 'to_rgb', False)
        )
        if keeps_order is None:
            keeps_order = getattr(preprocessor, 'keeps_order', False)
        self.keeps_order = keeps_order
        self.takes_bgr = not turned and not self.keeps_order
        tested = getattr(preprocessor, 'test_cfg', None)
        least = None
        if hasattr(preprocessor, 'seg_pad_val'):  # MMSegmentation pads in the test by test_cfg only
            self.divisor = int((tested or {}).get('size_divisor') or 1)
            least = (tested or {}).get('size')
            self.pad_value = float(preprocessor.pad_val)
        else:
            self.divisor = int(getattr(preprocessor, 'pad_size_divisor', 1))
            self.pad_value = float(getattr(preprocessor, 'pad_value', 0))
        self.least = None if least is None else (int(least[-2]), int(least[-1]))
        normalises = getattr(preprocessor, '_enable_normalize', False)
        self.register_buffer(
            'mean', preprocessor.mean.clone() if normalises else torch.zeros(1, 1, 1)
        )
        self.register_buffer('std', preprocessor.std.clone() if normalises else torch.ones(1, 1, 1))
        for name, value in (('mean', self.mean.max()), ('std', self.std.max())):
            if input_type == 'uint8' and value > 255:
                raise UserError(
                    f'the images that the model was trained with have more than 8 bits (a {name} '
                    f'of {value:.4g}); export it with --input float'
                )

    def example(self, size: tuple[int, int], channels: int = 3, batch: int = 1) -> Tensor:
        """Random images of a height and width, as the graph takes them."""
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (batch, *size, channels), generator=generator)
        if self.input_type == 'uint8':
            return image.to(torch.uint8)
        return image.permute(0, 3, 1, 2).float().contiguous()

    @property
    def axes(self) -> tuple[int, int]:
        """Axes of height and width of an image."""
        return (1, 2) if self.input_type == 'uint8' else (2, 3)

    def channels(self, image: Tensor) -> int:
        """Number of channels of an image."""
        return image.shape[3 if self.input_type == 'uint8' else 1]

    def forward(self, image: Tensor) -> Tensor:
        """What the network takes, (N, C, H', W'), float32, of an image of the type described."""
        x = image
        if self.input_type == 'uint8':  # operators of mmcv take no channels-last images
            x = image.permute(0, 3, 1, 2).float().contiguous()
        if self.takes_bgr and x.shape[1] == 3:
            x = x.flip(1)
        x = (x - self.mean) / self.std
        # written as a multiple of a number that is rounded up, a size is known to be divisible
        size = (ceil_div(length, self.divisor) * self.divisor for length in x.shape[2:])
        height, width = cast(tuple[Any, Any], tuple(size))  # of Python or symbols
        if self.least is not None:
            height = torch.sym_max(height, self.least[0])
            width = torch.sym_max(width, self.least[1])
        if self.divisor > 1 or self.least is not None:
            padding = (0, width - x.shape[3], 0, height - x.shape[2])
            x = F.pad(x, padding, value=self.pad_value)
        return x


def channels_of(model: nn.Module) -> int:
    """Number of channels of the images that a model takes: that of its first convolution.

    Args:
        model: A model of OpenMMLab, or a backbone.
    """
    backbone = getattr(model, 'backbone', model)
    if isinstance(stated := getattr(backbone, 'in_channels', None), int):
        return stated
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3
