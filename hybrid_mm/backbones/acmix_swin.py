"""Swin Transformer with ACmix.

Status: complete; checked number by number against the authors' classifier. They published no
detector: any image size is as in Swin's detection code.

Source: "On the Integration of Self-Attention and Convolution" (arXiv 2111.14556), section 5, and
its code.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.swin import Swin, SwinArch, SwinArguments
from hybrid_mm.layers.attention.acmix import ACmixWindowAttention
from hybrid_mm.ops.arguments import fraction, not_negative
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class ACmixSwin(Swin):
    """Swin Transformer of which every window attention is ACmix.

    Maps of any image size from 32 x 32 up. The convolution path sees the map padded to whole
    windows and, in every second block, rolled: padded pixels carry the biases of queries,
    keys and values, and it convolves over the seam.

    A plain Swin checkpoint can be the start: its weights are taken with the rates 1 of attention
    and 0 of convolution, so that the network computes what Swin does until it is trained.

    Args:
        arch: 'tiny', 'small' (the paper's), 'base', 'large', or a dict with the fields of
            :class:`~hybrid_mm.backbones.frames.swin.SwinArch`.
        qkv_bias: Bias of the projection to queries, keys and values.
        qk_scale: Factor of the logits, by default d^-0.5.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate after attention.
        impl: Algorithm, see :mod:`hybrid_mm.ops.dispatch`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.swin.Swin`.

    Raises:
        ValueError: An unknown variant, heads that do not divide the channels.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import ACmixSwin
        >>> maps = ACmixSwin('tiny').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 96, 25, 33), (1, 192, 13, 17), (1, 384, 7, 9), (1, 768, 4, 5)]
    """

    arch_zoo: ClassVar = Swin.arch_zoo

    def __init__(
        self,
        arch: str | Mapping | SwinArch = 'tiny',
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        impl: str = 'auto',
        **kwargs: Unpack[SwinArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        not_negative(self, qk_scale=qk_scale)
        fraction(self, attn_drop=attn_drop, proj_drop=proj_drop)
        self.operator: dict[str, Any] = dict(
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
            impl=impl,
        )
        self.build()

    def make_attention(self, stage: int, block: int) -> nn.Module:
        """ACmix."""
        channels, window, heads = self.stage_channels[stage], self.windows[stage], self.heads[stage]
        return ACmixWindowAttention(channels, window, heads, **self.operator)

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout; one of a plain Swin has no convolution paths.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each.
        """
        new = {k: v for k, v in self.state_dict().items() if '.mix.' in k or '.attn.rate' in k}
        plain = any(key.endswith('.attn.relative_bias') for key in state)
        if plain and not new.keys() & state.keys():
            print_log(
                f'{origin} has no convolution paths: it is a plain Swin, whose attention is taken '
                'with rate 1; the convolution paths start with rate 0',
                'current',
            )
            rates = {'rate1': torch.ones(1), 'rate2': torch.zeros(1)}
            state = state | {k: rates.get(k.rpartition('.')[2], v) for k, v in new.items()}
        super().load_strictly(state, origin)
