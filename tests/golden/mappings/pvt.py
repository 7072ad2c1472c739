"""PVT's attention, classifier and dense network by their official arguments."""

from torch import Tensor, nn

from hybrid_mm.backbones import PVT
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.spatial_reduction_attention import SpatialReductionAttention
from mappings.common import Classifier, Config, convert_part, load


class _Sized(nn.Module):
    """Attention with the size of the map."""

    def __init__(self, attn: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.attn, self.size = attn, size

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, self.size)


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    config.ignore(patch_size=(4,), norm_eps=(1e-6,), in_chans=(3,))
    config.ignore(drop_rate=..., attn_drop_rate=..., drop_path_rate=...)
    names = dict(embed_dims='embed_dims', heads='num_heads', mlp_ratios='mlp_ratios')
    names |= dict(depths='depths', reductions='sr_ratios')
    classes = config.take('num_classes')
    dense = 'cls_token' not in weights
    model = PVT(
        {ours: config.take(theirs) for ours, theirs in names.items()},
        img_size=config.take('img_size', default=224),
        qkv_bias=config.take('qkv_bias', default=False),
        partial_patches='drop',
        class_token=not dense,
        out_indices=(0, 1, 2, 3) if dense else (3,),
    )
    config.done()
    state = convert(weights, 'pvt')
    if dense:
        return load(model, state)
    return Classifier(model, classes).load(state)


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.startswith('PyramidVisionTransformer'):
        return _network(config, weights)
    if module != 'Attention':
        raise ValueError(f'unknown module {module!r}')
    size = config.take('H'), config.take('W')
    attn = SpatialReductionAttention(
        config.take('dim'),
        config.take('num_heads', default=8),
        config.take('sr_ratio', default=1),
        config.take('qkv_bias', default=False),
    )
    config.done()
    return _Sized(
        load(attn, convert_part(weights, 'block1.0.attn.', 'stages.0.blocks.0.attn.', 'pvt')), size
    )
