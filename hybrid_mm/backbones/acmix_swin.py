"""Swin Transformer with ACmix.

Status: complete; checked number by number against the authors' classifier. They published no
detector: any image size is as in Swin's detection code.

Source: "On the Integration of Self-Attention and Convolution" (arXiv 2111.14556), section 5, and
its code.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.swin import Swin, SwinArch, SwinArguments
from hybrid_mm.convert.core import StateDict
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

    def fit_weights(self, state: StateDict) -> StateDict:
        """Weights of a plain Swin, which has no convolution paths, take attention with rate 1."""
        state, new = super().fit_weights(state), self._convolution_paths()
        plain = any(key.endswith('.attn.relative_bias') for key in state)
        if plain and not new.keys() & state.keys():
            values = {'rate1': torch.ones_like, 'rate2': torch.zeros_like}
            rates = {key: values.get(key.rpartition('.')[2]) for key in new}
            state |= {key: value(new[key]) for key, value in rates.items() if value is not None}
        return state

    def initial_values(self, state: StateDict) -> StateDict:
        """Convolution paths as well, which a plain Swin has not."""
        new = {key: value for key, value in self._convolution_paths().items() if '.mix.' in key}
        return super().initial_values(state) | ({} if new.keys() & state.keys() else new)

    def _convolution_paths(self) -> StateDict:
        """What plain attention has not."""
        own = self.state_dict().items()
        return {key: value for key, value in own if '.mix.' in key or '.attn.rate' in key}
