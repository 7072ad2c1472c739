"""ELSA in the place of window attention, its block, and the Swin Transformer with it."""

from typing import Any

from torch import Tensor, nn

from hybrid_mm.backbones import ELSASwin
from hybrid_mm.backbones.frames.swin import SwinBlock
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.elsa import ELSA
from mappings.common import Classifier, Config, convert_part, load

_BLOCK = 'layers.0.blocks.0.', 'stages.0.blocks.0.', 'elsa-swin'


def _elsa(config: Config, kernel_size: int, scale: Any) -> ELSA:
    config.ignore(attn_drop=..., proj_drop=..., drop=..., drop_path=..., stride=(1,))
    dim = config.take('dim')
    config.ignore(dim_qk=(None,), dim_v=(None, dim))
    return ELSA(
        dim,
        config.take('num_heads'),
        config.take('kernel_size', default=kernel_size),
        dilation=config.take('dilation', default=1),
        group_width=config.take('group_width', default=8),
        groups=config.take('groups', default=1),
        lam=config.take('lam', default=1),
        gamma=config.take('gamma', default=1),
        qk_scale=config.take('qk_scale', default=None) if 'qk_scale' in config else scale,
        qkv_bias=config.take('qkv_bias', default=False),
    )


def _operator(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    attn = _elsa(config, 5, None)
    config.done()
    official, ours, source = _BLOCK
    return load(attn, convert_part(weights, f'{official}attn.', f'{ours}attn.', source))


def _block(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    dim, ratio = config['dim'], config.take('mlp_ratio', default=3.0)
    block = SwinBlock(dim, _elsa(config, 5, 1), 1, 0, ratio)
    config.done()
    return load(block, convert_part(weights, *_BLOCK))


def _swin(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    config.ignore(drop_rate=..., attn_drop_rate=..., drop_path_rate=..., use_checkpoint=...)
    config.ignore(patch_norm=(True,), ape=(False,), patch_size=(4,), pretrain_img_size=...)
    config.ignore(frozen_stages=..., norm_layer=..., weight_init=..., init_cfg=..., pretrained=...)
    depths = config.take('depths', default=[2, 2, 6, 2])
    classifier = any(key.startswith('head.') for key in weights)
    side = 224
    if classifier:
        side = config.take('img_size', default=224)
        side = min(side) if isinstance(side, list | tuple) else side
        config.ignore(global_pool=('avg',))
        classes = config.take('num_classes', default=1000)
    window = config.take('window_size', default=7)
    last = side // 4 // 2 ** (len(depths) - 1)
    net = ELSASwin(
        dict(
            embed_dim=config.take('embed_dim', default=96),
            depths=depths,
            heads=config.take('num_heads', default=[3, 6, 12, 24]),
            group_width=config.take('group_width', default=8),
        ),
        kernel_size=config.take('elsa_kernel', 'kernel_size', default=7),
        window_size=min(window, last) if classifier else window,
        lam=config.take('lam', default=0),
        gamma=config.take('gamma', default=1),
        mlp_ratio=config.take('mlp_ratio', default=4.0),
        in_channels=config.take('in_chans', default=3),
        qkv_bias=config.take('qkv_bias', default=True),
        qk_scale=config.take('qk_scale'),
        always_shift=not classifier,
        out_indices=(len(depths) - 1,)
        if classifier
        else tuple(config.take('out_indices', default=range(len(depths)))),
    )
    if classifier:
        model = Classifier(net, classes)
        config.done()
        return model.load(convert(weights, 'elsa-swin'))
    config.done()
    return load(net, convert(weights, 'elsa-swin'))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module == 'ELSA':
        return _operator(config, weights)
    if module == 'ELSABlock':
        return _block(config, weights)
    if module.replace('_', '').lower() in ('elsaswin', 'elsaswintransformer'):
        return _swin(config, weights)
    raise ValueError(f'unknown module {module!r}')
