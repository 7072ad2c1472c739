"""Swin Transformer with enhanced local self-attention (ELSA-Swin).

Status: complete; checked number by number against the authors' dense network.

Source: "ELSA: Enhanced Local Self-Attention for Vision Transformer" (arXiv 2112.12786), section
4.1, and its code.
"""

from typing import Any, ClassVar

from torch import nn

from hybrid_mm.backbones.frames.swin import Swin
from hybrid_mm.layers.attention.elsa import ELSA
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class ELSASwin(Swin):
    """Swin Transformer with ELSA in all stages but the last, which keeps shifted windows.

    Maps of any image size from 32 x 32 up.

    Args:
        arch: 'tiny', 'small', 'base' (the paper's), or a dict with ``embed_dim``, the channels of
            the first stage, for every stage ``depths`` and ``heads``, and ``group_width``, the
            channels of a group of ELSA's convolution.
        kernel_size: Pixels of ELSA's window on each side, odd.
        window_size: Pixels of the last stage's windows on each side.
        lam: Power of the ghost head's factors; the published weights have 0, none.
        gamma: Factor of the ghost head's summands.
        qkv_bias: Bias of the projections to queries, keys and values.
        qk_scale: Factor of the last stage's logits, by default d^-0.5; ELSA has 1.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate behind attention.
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

    arch_zoo: ClassVar = {
        'tiny': dict(Swin.arch_zoo['tiny'], group_width=4),
        'small': dict(Swin.arch_zoo['small'], group_width=8),
        'base': dict(Swin.arch_zoo['base'], group_width=8),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base'}

    def __init__(
        self,
        arch: str | dict = 'tiny',
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
        stages = len(self.resolve_arch(arch)['depths'])
        super().__init__(arch, window_size=[1] * (stages - 1) + [window_size], **kwargs)
        self.common = dict(qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=proj_drop, impl=impl)
        self.operator = dict(
            kernel_size=kernel_size,
            lam=lam,
            gamma=gamma,
            qk_scale=1,
            group_width=self.settings['group_width'],
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
