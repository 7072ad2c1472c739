"""LESA, its operator and its ResNets."""

from torch import Tensor, nn

from hybrid_mm.backbones.frames.resnet import ConvSlot
from hybrid_mm.backbones.lesa_resnet import LESAResNet
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.lesa import LESA2d
from mappings.common import Config, convert_part, load

_POSITIONS = {'classification': 'flat', 'detection_qr': 'axial'}


class _Sized(LESAResNet):
    """Output sizes given for every stage instead of an image size."""

    def __init__(self, sizes: list[int], *args, **kwargs) -> None:
        self.sizes = sizes
        super().__init__(*args, **kwargs)

    def table_size(self, slot: ConvSlot) -> tuple[int, int]:
        return (self.sizes[slot.stage] * slot.stride,) * 2


def _lesa(config: Config) -> dict:
    part = Config(config.take('lesa'))
    named = dict(groups=part.take('groups'), positions=_POSITIONS[part.take('pe_type')])
    part.ignore(
        type=('LESA',),
        with_cp_UB_terms_only=...,
        df_channel_shrink=([2],),
        df_kernel_size=([1, 1],),
        df_group=([1, 1],),
    )
    part.done()
    return named


def _deformable(config: Config) -> bool:
    dcn = config.take('dcn')
    if dcn is None:
        return False
    dcn = Config(dcn)
    dcn.ignore(type=('DCN',), deform_groups=(1,), fallback_on_stride=(False,))
    dcn.done()
    return True


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    named, deformable = _lesa(config), _deformable(config)
    if module == 'LESA':
        channels, size = config.take('in_planes'), config.take('kernel_size')
        config.ignore(out_planes=(channels,))
        stride = config.take('stride', default=1)
        config.done()
        model = LESA2d(channels, (size, size), stride=stride, deformable=deformable, **named)
        ours = 'stages.0.blocks.0.conv2.'
        return load(model, convert_part(weights, 'layer1.0.conv2.', ours, 'lesa'))
    if module != 'ResNet':
        raise ValueError(f'unknown module {module!r}')
    base = config.take('base_channels')
    planes = [base * 2**stage for stage in range(4)]
    wide = 2 if config.take('wrn', default=False) else 1
    stages = config.take('stage_with_dcn', default=(False, True, True, True))
    model = _Sized(
        config.take('stage_spatial_res'),
        arch=dict(
            stem=weights['conv1.weight'].shape[0],
            bottleneck=True,
            depths=config.take('stage_blocks'),
            widths=[wide * p for p in planes],
            out_channels=[4 * p for p in planes],
        ),
        strides=tuple(config.take('strides')),
        lesa=tuple(config.take('stage_with_lesa')),
        first_conv=tuple(config.take('stage_with_first_conv')),
        deformable=tuple(deformable and s for s in stages),
        **named,
    )
    config.ignore(depth=(50, 101, 152))
    config.done()
    return load(model, convert(weights, 'lesa'))
