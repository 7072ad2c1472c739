"""Make stored cases of whole networks with outputs computed by timm.

    pip install timm
    python tools/dev/golden/make_timm.py

Widths, depths, windows and heads of timm's variants are reduced; all other settings stay.
"""

import dataclasses
import sys
from pathlib import Path

import timm
from timm.models import byoanet, byobnet, maxxvit
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from case import draw_input, randomise, save

_STD = {
    'relative_position_bias_table': 0.5, 'attn.proj.': 0.05, 'mlp.fc2.': 0.05,
    'conv3_1x1.weight': 0.1, 'shortcut.': 0.1, 'rel_pos.mlp.fc2': 0.3,
}  # fmt: skip
_SIZES = dict(depths=[1, 2, 1, 1], channels=[8, 8, 16, 16])


def _stages(model: nn.Module, x: Tensor) -> list[Tensor]:
    x, maps = model.stem(x), []
    for stage in model.stages:
        x = stage(x)
        maps.append(x)
    return maps


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of stem and stages, without buffers that follow from the sizes."""
    derived = 'relative_position_index', 'num_batches_tracked', 'relative_coords_log'
    derived += 'height_lookup', 'width_lookup', 'rel_pos_dim'
    return {
        key: value
        for key, value in model.state_dict().items()
        if key.startswith(('stem.', 'stages.')) and not key.endswith(derived)
    }


def _make(
    slug: str,
    name: str,
    variant: str,
    sizes: dict,
    size: tuple[int, int],
    seed: int,
    network: str,
    config: dict,
    fields: bool = False,
    **transformer,
) -> None:
    """A variant of timm; with ``fields``, the case tells it by timm's own fields."""
    cfg = maxxvit.model_cfgs[variant]
    cfg = dataclasses.replace(
        cfg,
        embed_dim=tuple(sizes['channels']),
        depths=tuple(sizes['depths']),
        stem_width=tuple(sizes['stem']['channels']),
        head_hidden_size=None,
        transformer_cfg=dataclasses.replace(cfg.transformer_cfg, dim_head=4, **transformer),
    )
    if fields:
        config = dict(config, arch=dataclasses.asdict(cfg))
    model = maxxvit.MaxxVit(cfg, img_size=size).double().eval().requires_grad_(False)
    randomise(model, seed, _STD)
    save(
        slug,
        name,
        lambda x: _stages(model, x),
        draw_input((1, 3, *size), seed),
        lambda: _weights(model),
        f'hybrid_mm.{network}',
        config,
        f'timm {timm.__version__}, {variant} with smaller sizes',
    )


def _make_byobnet(name: str, variant: str, channels: list[int], stem: int, seed: int) -> None:
    """BoTNet of timm with its depths and fewer channels."""
    size, cfg = (64, 96), byoanet.model_cfgs[variant]

    def narrow(block, width: int):
        if isinstance(block, tuple | list):
            return tuple(narrow(part, width) for part in block)
        return dataclasses.replace(block, c=width)

    blocks = tuple(narrow(b, c) for b, c in zip(cfg.blocks, channels, strict=True))
    cfg = dataclasses.replace(cfg, blocks=blocks, stem_chs=stem, num_features=0)
    model = byobnet.ByobNet(cfg, img_size=size).double().eval().requires_grad_(False)
    randomise(model, seed, {'_rel': 1.0, 'attn.fc2.weight': 1.0})
    pool = cfg.stem_pool == 'maxpool'
    sizes = dict(channels=channels, stem=dict(kind='tiered', channels=stem, pool=pool))
    save(
        'botnet',
        name,
        lambda x: _stages(model, x),
        draw_input((1, 3, *size), seed),
        lambda: _weights(model),
        'hybrid_mm.BoTNet',
        dict(arch=variant, canvas_size=list(size), sizes=sizes),
        f'timm {timm.__version__}, {variant} with fewer channels',
    )


def main() -> None:
    """Write the cases."""
    _make_byobnet('net_sebotnet33ts', 'sebotnet33ts', [16, 16, 32, 24], 16, 5)
    stem = dict(channels=[8, 8], bias=True)
    sizes, window = dict(_SIZES, stem=stem), [2, 3]
    _make(
        'maxvit',
        'net',
        'maxvit_tiny_tf',
        sizes,
        (63, 96),
        1,
        'MaxViT',
        dict(sizes=sizes, window_size=window, head_width=4),
        window_size=tuple(window),
        grid_size=tuple(window),
    )
    sizes = dict(_SIZES, depths=[1, 1, 2, 1], stem=dict(channels=[8, 8], bias=False))
    config = dict(sizes=sizes, img_size=[64, 96], head_width=4)
    _make('coatnet', 'net', 'coatnet_0', sizes, (64, 96), 2, 'CoAtNet', config)
    sizes = dict(sizes, stem=dict(channels=[4, 8], bias=False))
    for seed, variant, arch in ((3, 'coatnet_0_rw', '0-rw'), (4, 'coatnet_rmlp_2_rw', 'rmlp-2-rw')):
        config = dict(arch=arch, sizes=sizes, img_size=[32, 64], head_width=4)
        name = f'net_{arch.replace("-", "_")}'
        _make('coatnet', name, variant, sizes, (32, 64), seed, 'CoAtNet', config)
    config, size = dict(img_size=[32, 64]), (32, 64)
    variant = 'coatnet_rmlp_1_rw'
    _make('coatnet', 'net_rmlp_1_rw', variant, sizes, size, 6, 'CoAtNet', config, fields=True)
    variant, given = 'maxvit_rmlp_small_rw', dict(window_size=(2, 3), grid_size=(1, 3))
    _make('maxvit', 'net_rmlp_small_rw', variant, sizes, (64, 96), 7, 'MaxViT', {}, True, **given)


if __name__ == '__main__':
    main()
