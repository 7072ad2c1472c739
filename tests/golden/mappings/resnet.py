"""What the networks on a ResNet share: the reference's sizes as an arch of ours."""

from torch import Tensor

from mappings.common import Config


def arch(config: Config, weights: dict[str, Tensor]) -> dict:
    """Arch dict from ``stem``, ``planes`` and ``depths``; the kind of block from the weights."""
    stem, planes, depths = (config.take(key) for key in ('stem', 'planes', 'depths'))
    bottleneck = any(key.endswith('.0.conv3.weight') for key in weights)
    expansion = config.take('expansion', default=4 if bottleneck else 1)
    return dict(
        stem=stem,
        bottleneck=bottleneck,
        depths=depths,
        widths=planes,
        out_channels=[expansion * p for p in planes],
    )
