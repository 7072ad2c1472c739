"""HorNet by its official arguments."""

from torch import Tensor, nn

from hybrid_mm.backbones import HorNet
from hybrid_mm.convert import convert
from hybrid_mm.layers import GlobalLocalFilter, RecursiveGatedConv
from hybrid_mm.openmmlab.hor_fpn import GatedConvModule
from mappings.common import (
    Classifier,
    Config,
    convert_part,
    load,
    norm_eps,
    of_mmpretrain,
    without_unused_norms,
)


class _Flat(nn.Module):
    """Pooled maps (N, C, 1, 1) as vectors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(y.flatten(1) for y in self.model(x))


PART = 'stages.0.0.gnconv.', 'stages.0.blocks.0.mixer.'


def _filter(config: Config) -> tuple[int, int] | None:
    """Size of the filter of an operator, or None for a kernel."""
    kind = config.take('gflayer', default=None)
    size = config.take('h', default=14), config.take('w', default=8)
    if kind not in (None, 'GlobalLocalFilter'):
        raise ValueError(f'cannot map gflayer={kind!r}')
    return size if kind else None


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    dense = 'head.weight' not in weights
    depths, base = config.take('depths'), config.take('base_dim')
    filters = config.take('gf', default=None) or [None] * len(depths)
    sizes = [size and (size['h'], size['w']) for size in filters]
    orders = config.take('orders', 'order', default=5)
    scaled = config.take('layer_scale', default=True)
    scale = config.take('layer_scale_init_value', default=1e-6) if scaled else 0
    model = HorNet(
        dict(
            depths=depths,
            dims=[base * 2**i for i in range(len(depths))],
            orders=[orders] * len(depths) if isinstance(orders, int) else orders,
            filter_sizes=sizes,
        ),
        scale=config.take('s', default=1.0),
        layer_scale=scale,
        in_channels=config.take('in_chans', default=3),
        out_indices=tuple(config.take('out_indices', default=range(4))) if dense else (3,),
        pooled=not dense,
    )
    classes = config.take('num_classes', default=1000)
    config.ignore(drop_path_rate=..., head_init_scale=..., layer_scale_init_value=...)
    config.done()
    state = without_unused_norms(convert(weights, 'hornet'), model.out_indices)
    return load(model, state) if dense else Classifier(model, classes).load(state)


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module.startswith('HorNet'):
        if 'arch' in config or 'base_dim' not in config:
            defaults = dict(out_indices=(3,), gap_before_final_norm=True)
            model = of_mmpretrain(HorNet, config, weights, **defaults)
            if model.pooled and model.out_indices != (3,):
                raise ValueError(
                    f'cannot map gap_before_final_norm=True with out_indices={model.out_indices}'
                )
            return _Flat(model) if model.pooled else model
        return _network(config, weights)
    if module == 'gnconv':
        channels, order = config.take('dim'), config.take('order', default=5)
        scale, size = config.take('s', default=1.0), _filter(config)
        model = RecursiveGatedConv(channels, channels, channels, order, 7, scale, size)
        config.done()
        return load(model, convert_part(weights, *PART, 'hornet'))
    if module == 'GlobalLocalFilter':
        size = config.take('h', default=14), config.take('w', default=8)
        model = GlobalLocalFilter(config.take('dim'), size)
        config.done()
        parts = (part + 'dwconv.' for part in PART)
        return load(model, convert_part(weights, *parts, 'hornet'))
    if module == 'GNConvModule':
        return _gated(config, weights)
    raise ValueError(f'unknown module {module!r}')


def _gated(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    """Gated convolution of HorFPN, with MMCV's norm and activation."""
    kind = config.take('type', default='gnconv')
    height = config.take('h', default=32)
    size = height, config.take('w', default=height // 2 + 1)
    if kind not in ('gnconv', 'gngf'):
        raise ValueError(f'cannot map type={kind!r}')
    # the copies for detection and segmentation have other defaults: the weights tell
    kernel = weights['dwconv.weight'].shape[-1] if kind == 'gnconv' else 7
    model = GatedConvModule(
        config.take('in_channels'),
        config.take('out_channels'),
        config.take('dim_ratio', default=1),
        config.take('order', default=2),
        config.take('kernel_size', default=kernel),
        size if kind == 'gngf' else None,
        config.take('proj_out', default='proj_out.weight' in weights),
        _norm(config.take('norm_cfg', default=None)),
        config.take('act_cfg', default='ReLU'),
    )
    config.ignore(inplace=..., gf_kernel_size=(3,))
    config.done()
    own = {}
    for key in list(weights):
        part, _, name = key.partition('.')
        if part in ('norm', 'bn', 'gn', 'in', 'ln', 'activate'):
            own[f'{"act" if part == "activate" else "norm"}.{name}'] = weights.pop(key)
    return load(model, convert_part(weights, *PART, 'hornet') | own)


def _norm(given: str | dict | None) -> str | dict | None:
    """MMCV's settings of a norm; 'SyncBN evaluated as BatchNorm2d eps 1e-5' names one as well."""
    if not isinstance(given, str):
        return given
    return dict(type=given.split()[0], eps=norm_eps(given, 1e-5))
