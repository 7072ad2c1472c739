"""SLaK by its official arguments; also the frame's part of PeLK."""

from torch import Tensor, nn

from hybrid_mm.backbones import SLaK
from hybrid_mm.backbones.frames.convnext import ConvNeXtBlock
from hybrid_mm.backbones.slak import slak_kernels
from hybrid_mm.convert import convert
from mappings.common import Classifier, Config, convert_part, load, without_unused_norms

PART = 'stages.0.0.', 'stages.0.blocks.0.'


class OnMaps(nn.Module):
    """A block from and to (N, C, H, W)."""

    def __init__(self, block: nn.Module, *arguments: Tensor | None) -> None:
        super().__init__()
        self.block = block
        self.arguments = arguments

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.permute(0, 2, 3, 1), *self.arguments).permute(0, 3, 1, 2)


def _kernels(config: Config, channels: int, size: int, small: int | None) -> nn.Module:
    decomposed = bool(config.take('Decom', 'LoRA', default=False))
    norm = dict(type='BN') if config.take('bn', default=True) else None
    merged = bool(config.take('small_kernel_merged', default=False))
    # the official merged form is one dense kernel, whatever it was before
    kernels = slak_kernels(channels, size, small, decomposed and not merged, norm)
    if merged:
        kernels.switch_to_deploy()
    return kernels


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    *sizes, small = config.take('kernel_size')
    classes = config.take('num_classes')
    dense = 'head.weight' not in weights
    model = SLaK(
        dict(depths=config.take('depths'), dims=config.take('dims')),
        sizes,
        small,
        decomposed=bool(config.take('Decom', 'LoRA', default=False)),
        norm_cfg=dict(type='BN') if config.take('bn', default=True) else None,
        width_factor=config.take('width_factor', default=1.0),
        layer_scale=config.take('layer_scale_init_value', default=1e-6),
        in_channels=config.take('in_chans', default=3),
        out_indices=tuple(config.take('out_indices', default=range(4))) if dense else (3,),
        pooled=not dense,
    )
    config.ignore(drop_path_rate=..., head_init_scale=..., sparse=..., width_factor=...)
    config.done()
    state = convert(weights, 'slak')
    state = without_unused_norms(state, model.out_indices)
    return load(model, state) if dense else Classifier(model, classes).load(state)


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module == 'SLaK':
        return _network(config, weights)
    if module == 'ReparamLargeKernelConv':
        channels = config.take('in_channels')
        config.ignore(out_channels=(channels,), groups=(channels,), stride=(1,))
        size, small = config.take('kernel_size'), config.take('small_kernel')
        model = _kernels(config, channels, size, small)
        config.done()
        part = f'{PART[0]}large_kernel.', f'{PART[1]}mixer.'
        return load(model, convert_part(weights, *part, 'slak'))
    if module == 'Block':
        channels = config.take('dim')
        config.ignore(drop_path=...)
        size, small = config.take('kernel_size')
        scale = config.take('layer_scale_init_value', default=1e-6)
        model = ConvNeXtBlock(_kernels(config, channels, size, small), channels, 0.0, scale)
        config.done()
        return OnMaps(load(model, convert_part(weights, *PART, 'slak')))
    raise ValueError(f'unknown module {module!r}')
