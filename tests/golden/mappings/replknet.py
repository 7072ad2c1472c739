"""RepLKNet by its official arguments."""

from torch import Tensor, nn

from hybrid_mm.backbones import RepLKNet
from hybrid_mm.backbones.frames.parallel_kernels import ParallelKernels, merge_kernels
from hybrid_mm.backbones.replknet import PointwiseConvFFN, RepLKBlock
from hybrid_mm.convert import convert
from hybrid_mm.layers import DepthwiseConv2d
from mappings.common import (
    Classifier,
    Config,
    convert_part,
    load,
    of_mmpretrain,
    without_unused_norms,
)

_NORM = dict(type='BN')


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    classes = config.take('num_classes')
    dense = 'head.weight' not in weights
    if dense:
        norms = 'all' if config.take('norm_intermediate_features', default=False) else 'none'
    else:
        norms = 'last'
    merged = bool(config.take('small_kernel_merged', default=False))
    arch = dict(
        kernel_sizes=config.take('large_kernel_sizes'),
        depths=config.take('layers'),
        channels=config.take('channels'),
        small_kernel=config.take('small_kernel'),
        dw_ratio=config.take('dw_ratio', default=1),
    )
    indices = config.take('out_indices') if dense else None
    model = RepLKNet(
        arch,
        in_channels=config.take('in_channels', default=3),
        out_indices=tuple(indices) if indices is not None else (3,),
        norm_outputs=norms,
        ffn_ratio=config.take('ffn_ratio', default=4),
        deploy=merged,
    )
    config.ignore(
        drop_path_rate=...,
        use_checkpoint=...,
        use_sync_bn=...,
        out_indices=(None,),
        norm_intermediate_features=...,
    )
    config.done()
    state = convert(weights, 'replknet')
    state = without_unused_norms(state, model.out_indices)
    return load(model, state) if dense else Classifier(model, classes).load(state)


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module == 'RepLKNet':
        if 'arch' in config:  # every returned map has its norm, whatever the config says
            config.ignore(norm_intermediate_features=..., use_checkpoint=...)
            # MMPretrain's network reads none of its layers' settings
            config.ignore(norm_cfg=..., act_cfg=..., conv_cfg=..., strides=..., dilations=...)
            return of_mmpretrain(RepLKNet, config, weights, out_indices=(3,), norm_outputs='all')
        return _network(config, weights)
    config.ignore(drop_path=...)
    if module == 'RepLKBlock':
        merged = bool(config.take('small_kernel_merged', default=False))
        channels, mid = config.take('in_channels'), config.take('dw_channels')
        size, small = config.take('block_lk_size'), config.take('small_kernel')
        model = RepLKBlock(channels, mid, size, small, 0.0, _NORM)
        if merged:
            merge_kernels(model)
        config.done()
        part = 'stages.0.blocks.0.'
        return load(model, convert_part(weights, part, part, 'replknet'))
    if module == 'ConvFFN':
        channels, hidden = config.take('in_channels'), config.take('internal_channels')
        config.ignore(out_channels=(channels,))
        model = PointwiseConvFFN(channels, hidden, 0.0, _NORM)
        config.done()
        part = 'stages.0.blocks.1.'
        return load(model, convert_part(weights, part, part, 'replknet'))
    if module == 'ReparamLargeKernelConv':
        channels = config.take('in_channels')
        config.ignore(out_channels=(channels,), groups=(channels,), stride=(1,))
        sizes = dict(large=config.take('kernel_size'))
        if (small := config.take('small_kernel')) is not None:
            sizes['small'] = small
        kernels = {n: DepthwiseConv2d(channels, size, bias=False) for n, size in sizes.items()}
        merged = bool(config.take('small_kernel_merged', default=False))
        model = ParallelKernels(kernels, _NORM)
        if merged:
            merge_kernels(model)
        config.done()
        part = 'stages.0.blocks.0.'
        names = f'{part}large_kernel.', f'{part}mixer.'
        return load(model, convert_part(weights, *names, 'replknet'))
    raise ValueError(f'unknown module {module!r}')
