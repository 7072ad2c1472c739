"""Networks of other packages in the form that the study's pairs need."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.errors import UserError
from hybrid_mm.registry import MODELS

__all__ = ['StudyMaxxVit', 'StudySquare', 'StudySquareLeViT']


@MODELS.register_module()
class StudyMaxxVit(nn.Module):
    """A MaxViT or CoAtNet of timm with other sizes, without its classifier.

    Args:
        base: Name of a variant in timm's ``model_cfgs``.
        img_size: Rows and columns of the images; windows have 1/32 of them.
        dim_head: Channels of a head.
        **sizes: Fields of timm's ``MaxxVitCfg``: embed_dim, depths, stem_width.

    Raises:
        UserError: timm is not installed.
    """

    def __init__(self, base: str, img_size: Sequence[int], dim_head: int, **sizes: Any) -> None:
        super().__init__()
        try:
            from timm.models.maxxvit import MaxxVit, model_cfgs  # type: ignore[import-not-found]
        except ImportError as error:
            raise UserError(
                f'peers of MaxViT and CoAtNet need timm: pip install timm ({error})'
            ) from error
        cfg = model_cfgs[base]
        transformer = replace(cfg.transformer_cfg, dim_head=dim_head)
        cfg = replace(cfg, transformer_cfg=transformer, head_hidden_size=None, **sizes)
        net = MaxxVit(cfg, img_size=tuple(img_size), num_classes=0)
        self.stem, self.stages = net.stem, net.stages

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to maps at strides 4 to 32."""
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class _OnSquare(nn.Module):
    """Pad images to a square at the bottom and right, and cut the maps back."""

    def __init__(self, img_size: int | Sequence[int]) -> None:
        super().__init__()
        self.side = img_size if isinstance(img_size, int) else max(img_size)

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """Maps of a square image."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) of sizes divisible by 32 to maps at strides 4 to 32."""
        height, width = x.shape[-2:]
        square = F.pad(x, (0, self.side - width, 0, self.side - height))
        return tuple(
            y[..., : height * y.shape[-2] // self.side, : width * y.shape[-1] // self.side]
            for y in self.maps(square)
        )


@MODELS.register_module()
class StudySquare(_OnSquare):
    """A backbone on square images, for networks of MMPretrain whose tables are of such.

    Args:
        backbone: Its config.
        img_size: Rows and columns of the images, of which the larger is the square's side.
    """

    def __init__(self, backbone: Mapping[str, Any], img_size: int | Sequence[int]) -> None:
        super().__init__(img_size)
        self.net = MODELS.build({**backbone, 'img_size': self.side})

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """Maps of a square image."""
        return self.net(x)


class _Renamed(dict):
    """MMPretrain's LeViT checks that ``arch`` has ``embed_dim`` and reads ``embed_dims``."""

    def __missing__(self, key: str) -> Any:
        return self[key.removesuffix('s')] if key.endswith('s') else super().__getitem__(key)


@MODELS.register_module()
class StudySquareLeViT(_OnSquare):
    """MMPretrain's LeViT, which takes square images only, with the maps of its stem as ours.

    Args:
        embed_dims: Channels of the attention stages.
        key_dims: Channels of a head's queries and keys.
        num_heads: Heads.
        depths: Blocks.
        img_size: Rows and columns of the images, of which the larger is the square's side.
        zero_residuals: Begin with residual branches of zero, as in the authors' code and ours.
    """

    def __init__(
        self,
        embed_dims: Sequence[int],
        key_dims: Sequence[int],
        num_heads: Sequence[int],
        depths: Sequence[int],
        img_size: int | Sequence[int],
        zero_residuals: bool = False,
    ) -> None:
        super().__init__(img_size)
        arch = _Renamed(embed_dim=embed_dims, key_dim=key_dims, num_heads=num_heads, depth=depths)
        stages = tuple(range(len(embed_dims)))
        # looked up and called: a registry would copy the dict as a plain one
        network = MODELS.get('mmpretrain.LeViT')
        self.net = network(arch=arch, img_size=self.side, out_indices=stages)
        if zero_residuals:
            for name, module in self.net.named_modules():
                if name.endswith(('block.proj.1.bn', 'block.linear2.bn')):
                    nn.init.zeros_(module.weight)

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """Maps of a square image: after the activations of the stem, and of the stages."""
        maps, stem = [], self.net.patch_embed.patch_embed
        for place, layer in enumerate(stem):
            x = layer(x)
            if place in (3, 5):  # convolution and activation: strides 4 and 8
                maps.append(x)
        x = x.flatten(2).transpose(1, 2)
        for stage, side in zip(self.net.stages, self.net.resolutions, strict=True):
            x = stage(x)
            maps.append(x.transpose(1, 2).reshape(len(x), -1, side, side))
        return maps
