"""VAN-Classification, VAN-Segmentation and the VAN-LSKA code."""

import contextlib
import re
from collections.abc import Iterator
from unittest import mock

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.van import (
    VAN,
    DepthwiseConvFFN,
    OverlapPatchEmbed,
    SpatialAttention,
    VANBlock,
)
from hybrid_mm.convert import convert
from hybrid_mm.layers import LayerNorm2d, build_large_kernel_attention
from mappings.common import UNUSED, Classifier, Config, convert_part, load, norm_eps

_OPERATORS = {
    'LKA': 'lka',
    'AttentionModule': 'lka',
    'LSKA': 'lska',
    'LKA-trivial': 'lka_trivial',
    'LSKA-trivial': 'lska_trivial',
}
_GATE = 'attn.spatial_gating_unit.'


LAYOUT_NOTE = (
    "the stored gradient is reproduced in the reference's memory layout, where torch's batch norm "
    'is wrong for one image; ours is the derivative of the outputs'
)


@contextlib.contextmanager
def reference_layout() -> Iterator[None]:
    """Our modules in the memory layout of the official dense code: same values, other strides.

    The official code normalises tokens (N, HW, C). For one image the gradient then reaches the
    batch norms with strides (C, 1, WC, C), and torch's CPU kernel (seen in 2.14.1) reads it in the
    wrong order: the gradients stored for a batch of 1 are not the derivative of the outputs.
    """

    def norm_tokens(self: LayerNorm2d, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = F.layer_norm(tokens, (c,), self.weight, self.bias, self.eps)
        return tokens.reshape(n, h, w, c).permute(0, 3, 1, 2).contiguous()

    def attend(self: SpatialAttention, x: Tensor) -> Tensor:
        shortcut = x.clone()
        return self.proj_out(self.lka(self.act(self.proj_in(x)))) + shortcut

    with (
        mock.patch.object(LayerNorm2d, 'forward', norm_tokens),
        mock.patch.object(SpatialAttention, 'forward', attend),
    ):
        yield


def _attention(weights: dict[str, Tensor]) -> tuple[str, str]:
    """Operator and source by the names of the convolutions."""
    names = {m[1] for m in map(re.compile(r'(?:.*\.)?(\w+)\.weight$').match, weights) if m}
    if names & {'DW_D_conv_h', 'DW_conv_h'}:
        return 'lska', 'lska-dense'
    if names & {'DW_D_conv', 'DW_conv'}:
        return 'lka', 'van-mmpretrain'
    if 'conv0h' in names:
        return ('lska', 'lska') if 'conv_spatial_h' in names else ('lska_trivial', 'lska-trivial')
    return ('lka', 'van') if 'conv_spatial' in names else ('lka_trivial', 'van-lka-trivial')


def _kernel(config: Config, attention: str, dense: bool = False) -> dict:
    """Kernel arguments; of ``kernels`` (a, b, d) only d is free."""
    size = config.take('k_size', 'kernel_size')
    if size is None:
        size = 23 if dense or attention in ('lka', 'lka_trivial') else 7
    out = dict(kernel_size=size)
    kernels = config.take('kernels')
    if kernels is not None and not attention.endswith('_trivial'):
        out['dilation'] = kernels[2]
    dilation = config.take('dilation', 'd')
    if dilation is not None:
        out['dilation'] = dilation
    return out


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    dense = 'arch' in config or 'norm_cfg' in config or config.get('num_classes') in (0, None)
    attention, source = _attention(weights)
    theirs = source == 'van-mmpretrain'
    arch = config.take('arch', default='tiny' if theirs else None)
    if arch is None:
        arch = {k: config.take(k) for k in ('embed_dims', 'depths', 'mlp_ratios')}
    elif isinstance(arch, dict):
        arch = {('mlp_ratios' if k == 'ffn_ratios' else k): v for k, v in arch.items()}
    classes = config.take('num_classes')
    norm = config.take('norm_layer', 'norm_cfg')
    backbone = VAN(
        arch,
        attention,
        **_kernel(config, attention, dense),
        in_channels=config.take('in_chans', 'in_channels', default=3),
        out_indices=config.take('out_indices', default=(3,) if theirs else (0, 1, 2, 3))
        if dense
        else (3,),
        # a text that gives an epsilon for the batch norm only leaves the layer norm's default
        ln_eps=1e-5 if dense and 'BatchNorm' in str(norm) else norm_eps(norm, 1e-5),
    )
    config.ignore(**UNUSED)
    config.ignore(
        patch_sizes=([7, 3, 3, 3], (7, 3, 3, 3)),
        num_stages=(4,),
        img_size=...,
        linear=(False,),
        flag=...,
        pretrained=...,
    )
    config.done()
    state = convert(weights)
    if dense:
        return load(backbone, {k: v for k, v in state.items() if not k.startswith('head.')})
    return Classifier(backbone, classes).load(state)


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for an official one."""
    config = Config(config)
    if module == 'VAN':
        return _network(config, weights)
    channels = config.take('dim', 'd_model', 'embed_dims', 'in_features', 'in_channels')
    attention, source = _attention(weights)
    block = 'blocks1.0.' if source in ('lska-dense', 'van-mmpretrain') else 'block1.0.'
    ours = 'stages.0.blocks.0.'
    if module in _OPERATORS:
        attention = _OPERATORS[module]
        kernel = _kernel(config, attention)
        model = build_large_kernel_attention(attention, channels, **kernel)
        part = (_GATE, 'attn.lka.')
    elif module in ('Attention', 'SpatialAttention', 'VANAttention'):
        kernel = _kernel(config, attention)
        model = SpatialAttention(channels, attention, **kernel)
        part = ('attn.', 'attn.')
    elif module in ('Block', 'VANBlock'):
        ratio = config.take('mlp_ratio', 'ffn_ratio', default=4.0)
        kernel = _kernel(config, attention)
        model = VANBlock(channels, ratio, attention, **kernel)
        part = ('', '')
    elif module in ('Mlp', 'MixFFN'):
        model = DepthwiseConvFFN(
            channels, config.take('hidden_features', 'feedforward_channels') or channels
        )
        part = ('mlp.', 'mlp.')
        source = 'van' if 'dwconv.dwconv.weight' in weights else 'van-mmseg'
        block = 'block1.0.'
    elif module in ('OverlapPatchEmbed', 'PatchEmbed'):
        model = OverlapPatchEmbed(
            config.take('in_chans', default=channels or 3),
            config.take('embed_dim'),
            config.take('patch_size', default=7),
            config.take('stride', default=4),
            dict(type='BN'),
        )
        config.ignore(img_size=...)
        config.done()
        source = 'van' if 'proj.weight' in weights else 'van-mmpretrain'
        return load(model, convert_part(weights, 'patch_embed1.', 'stages.0.embed.', source))
    else:
        raise ValueError(f'unknown module {module!r}')
    config.ignore(drop=..., drop_path=..., drop_rate=..., drop_path_rate=..., linear=(False,))
    config.ignore(act_layer=('GELU', 'nn.GELU'), norm_cfg=..., out_features=(channels,))
    config.done()
    return load(model, convert_part(weights, block + part[0], ours + part[1], source))
