"""hszhao/SAN: the operator, the block and the classifier."""

from torch import Tensor, nn

from hybrid_mm.backbones.san import ATTENTIONS, SAN, SANBlock
from hybrid_mm.convert import convert
from mappings.common import Classifier, Config, convert_part, load

_KINDS = {0: 'pairwise', 1: 'patchwise'}


def _kind(config: Config) -> str:
    value = config.take('sa_type')
    if value not in _KINDS:
        raise ValueError(f'cannot map sa_type={value!r}')
    return _KINDS[value]


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    depths, kernels = config.take('layers'), config.take('kernels')
    arch = dict(
        SAN.resolve_arch('san10').to_dict(),
        stem_depth=depths[0],
        depths=list(depths[1:]),
        stem_kernel_size=kernels[0],
        kernel_sizes=list(kernels[1:]),
    )
    backbone = SAN(arch, _kind(config), out_indices=(3,))
    model = Classifier(backbone, config.take('num_classes', default=1000))
    config.done()
    return model.load(convert(weights, 'san'))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for an official one."""
    config = Config(config)
    if module == 'SAN':
        return _network(config, weights)
    kind, kernel = _kind(config), config.take('kernel_size', default=3)
    inputs, rel, share = (config.take(k) for k in ('in_planes', 'rel_planes', 'share_planes'))
    outputs = config.take('out_planes')
    part = 'layer1.0.', 'stages.0.blocks.0.'
    if module == 'SAM':
        model = ATTENTIONS[kind](
            inputs,
            rel,
            outputs,
            share,
            kernel,
            config.take('stride', default=1),
            config.take('dilation', default=1),
        )
        part = part[0] + 'sam.', part[1] + 'attn.'
    elif module == 'Bottleneck':
        if inputs != outputs:
            raise ValueError(f'cannot map in_planes={inputs}, out_planes={outputs}: they are equal')
        config.ignore(stride=(1,))
        model = SANBlock(inputs, kind, kernel, rel, config.take('mid_planes'), share)
    else:
        raise ValueError(f'unknown module {module!r}')
    config.done()
    return load(model, convert_part(weights, *part, 'san'))
