"""Swin Transformer with enhanced local self-attention (ELSA-Swin).

Status: complete; checked number by number against the authors' dense network.

Source: "ELSA: Enhanced Local Self-Attention for Vision Transformer" (arXiv 2112.12786), section
4.1, and its code.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import nn

from hybrid_mm.backbones.frames.arch import Size
from hybrid_mm.backbones.frames.swin import Swin, SwinArch
from hybrid_mm.layers.attention.elsa import ELSA
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.ops.arguments import fraction, not_negative, odd, positive
from hybrid_mm.registry import MODELS


@dataclass(frozen=True, kw_only=True)
class ELSASwinArch(SwinArch):
    """Variant of an ELSA-Swin."""

    group_width: Size  # channels of a group of ELSA's convolution


def _arch(name: str, group_width: int) -> ELSASwinArch:
    return ELSASwinArch(**asdict(Swin.arch_zoo[name]), group_width=group_width)


@MODELS.register_module()
class ELSASwin(Swin):
    """Swin Transformer with ELSA in all stages but the last, which keeps shifted windows.

    Maps of any image size from 32 x 32 up.

    Args:
        arch: 'tiny', 'small', 'base' (the paper's), or a dict with the fields of
            :class:`ELSASwinArch`.
        kernel_size: Pixels of ELSA's window on each side, odd.
        window_size: Pixels of the last stage's windows on each side.
        lam: Power of the ghost head's factors; the published weights have 0, none.
        gamma: Factor of the ghost head's summands.
        qkv_bias: Bias of the projections to queries, keys and values.
        qk_scale: Factor of the last stage's logits, by default d^-0.5; ELSA has 1.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate after attention.
        always_shift: Shift the windows of the last stage even if its map fits into one, as the
            authors' dense network does and their classifier does not.
        impl: Algorithm, see :mod:`hybrid_mm.ops.dispatch`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.swin.Swin`.

    Raises:
        ValueError: An unknown variant, heads that do not divide the channels.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import ELSASwin
        >>> maps = ELSASwin('tiny').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 96, 25, 33), (1, 192, 13, 17), (1, 384, 7, 9), (1, 768, 4, 5)]
    """

    arch_class = ELSASwinArch
    arch_zoo: ClassVar = {
        'tiny': _arch('tiny', 4),
        'small': _arch('small', 8),
        'base': _arch('base', 8),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base'}

    arch: ELSASwinArch

    def __init__(
        self,
        arch: str | Mapping | ELSASwinArch = 'tiny',
        kernel_size: int = 7,
        window_size: int = 7,
        lam: float = 0,
        gamma: float = 1,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        always_shift: bool = True,
        impl: str = 'auto',
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, window_size=window_size, **kwargs)
        odd(self, kernel_size=kernel_size)
        positive(self, window_size=window_size)
        not_negative(self, lam=lam, gamma=gamma, qk_scale=qk_scale)
        fraction(self, attn_drop=attn_drop, proj_drop=proj_drop)
        self.windows = (*[1] * (len(self.depths) - 1), window_size)  # ELSA needs no padded maps
        self.common: dict[str, Any] = dict(
            qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=proj_drop, impl=impl
        )
        self.operator: dict[str, Any] = dict(
            kernel_size=kernel_size,
            lam=lam,
            gamma=gamma,
            qk_scale=1,
            group_width=self.arch.group_width,
        )
        self.qk_scale, self.always_shift = qk_scale, always_shift
        self.build()

    def make_attention(self, stage: int, block: int) -> nn.Module:
        """ELSA, in the last stage window attention."""
        channels, heads = self.stage_channels[stage], self.heads[stage]
        if stage < len(self.depths) - 1:
            return ELSA(channels, heads, **self.operator, **self.common)
        window = self.windows[stage]
        return WindowAttention(channels, window, heads, qk_scale=self.qk_scale, **self.common)
