"""CoAtNet by timm's arguments, which are those of MaxViT."""

from torch import Tensor, nn

from mappings import maxvit


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    return maxvit.build(module, config, weights, 'coatnet')
