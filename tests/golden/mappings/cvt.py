"""CvT by its official arguments."""

from torch import Tensor, nn

from hybrid_mm.backbones import CvT
from hybrid_mm.backbones.cvt import CvTBlock
from hybrid_mm.convert import convert
from hybrid_mm.layers.attention.convolutional_projection import ConvolutionalProjectionAttention
from mappings.common import Classifier, Config, convert_part, load

PART = 'stage0.blocks.0.', 'stages.0.blocks.0.'


class _Sized(nn.Module):
    """Module with the size of the map of its tokens."""

    def __init__(self, module: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.module, self.size = module, tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x, self.size)


class _MapsAndLogits(nn.Module):
    """The maps of a dense network, and the logits of the classifier with the same weights."""

    def __init__(self, dense: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.dense, self.classifier = dense, classifier

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return *self.dense(x), self.classifier(x)


class _MapAndToken(nn.Module):
    """The map that a stage ends in, and its class token, if it has one."""

    def __init__(self, network: CvT) -> None:
        super().__init__()
        self.network, (self.with_token,) = network, network.with_cls_token

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        (x_map,), (stage,) = self.network(x), self.network.stages
        if not self.with_token:
            return (x_map,)
        stage.pooled = True
        token = stage(x)
        stage.pooled = False
        return x_map, token


def _check_padding(config: Config, kernels: list[int]) -> None:
    for name in ('PADDING_Q', 'PADDING_KV', 'padding_q', 'padding_kv'):
        if name in config:
            value = config.take(name)
            values = value if isinstance(value, list | tuple) else [value]
            if list(values) != [kernel // 2 for kernel in kernels]:
                raise ValueError(f'cannot map {name}={value!r} with kernels {kernels}')


def _norm_eps(config: Config) -> None:
    config.ignore(norm_eps=(1e-5,), act=('QuickGELU',), INIT=..., init=...)


def _network(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    _norm_eps(config)
    names = dict(depths='DEPTH', embed_dims='DIM_EMBED', heads='NUM_HEADS')
    names |= dict(mlp_ratios='MLP_RATIO', patch_sizes='PATCH_SIZE')
    names |= dict(patch_strides='PATCH_STRIDE', patch_paddings='PATCH_PADDING')
    arch = {ours: config.take(theirs) for ours, theirs in names.items()}
    stages = config.take('NUM_STAGES', default=len(arch['depths']))
    if stages != len(arch['depths']):
        raise ValueError(f'cannot map NUM_STAGES={stages} with DEPTH={arch["depths"]}')
    config.ignore(ATTN_DROP_RATE=..., DROP_RATE=..., DROP_PATH_RATE=...)
    # the official code reads no POS_EMBED
    config.ignore(POS_EMBED=..., STRIDE_Q=([1] * stages,))
    kernels = config.take('KERNEL_QKV', default=[3] * stages)
    _check_padding(config, kernels)
    kwargs = dict(
        arch=arch,
        with_cls_token=config.take('CLS_TOKEN', default=[False] * stages),
        projection=config.take('QKV_PROJ_METHOD', default=['dw_bn'] * stages),
        kernel_size=kernels,
        kv_stride=config.take('STRIDE_KV', default=[2] * stages),
        qkv_bias=config.take('QKV_BIAS', default=[True] * stages),
        in_channels=config.take('in_chans', default=3),
    )
    classes = config.take('num_classes', default=1000)
    config.done()
    state = convert(weights, 'cvt')
    last = f'stages.{stages - 1}.norm.'
    maps = {k: v for k, v in state.items() if not k.startswith(('head.', last))}
    dense = load(CvT(**kwargs, out_indices=tuple(range(stages))), maps)
    if 'head.weight' not in state:
        return dense
    pooled = CvT(**kwargs, pooled=True, out_indices=(stages - 1,))
    return _MapsAndLogits(dense, Classifier(pooled, classes).load(state))


def _stage(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    """A stage of its own, which the authors call VisionTransformer."""
    _norm_eps(config)
    config.ignore(drop_rate=..., attn_drop_rate=..., drop_path_rate=..., stride_q=(1,))
    names = dict(depths='depth', embed_dims='embed_dim', heads='num_heads', mlp_ratios='mlp_ratio')
    names |= dict(patch_sizes='patch_size', patch_strides='patch_stride')
    names |= dict(patch_paddings='patch_padding')
    kernel = config.take('kernel_size', default=3)
    _check_padding(config, [kernel])
    network = CvT(
        {ours: [config.take(theirs)] for ours, theirs in names.items()},
        [config.take('with_cls_token')],
        projection=config.take('method', default='dw_bn'),
        kernel_size=kernel,
        kv_stride=config.take('stride_kv', default=1),
        qkv_bias=config.take('qkv_bias', default=False),
        in_channels=config.take('in_chans', default=3),
        out_indices=0,
    )
    config.done()
    state = convert_part(weights, 'stage0.', 'stages.0.', 'cvt')
    return _MapAndToken(load(network, {f'stages.0.{key}': value for key, value in state.items()}))


def build(module: str, config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Make our module for a reference one."""
    config = Config(config)
    if module in ('ConvolutionalVisionTransformer', 'CvT'):
        return _network(config, weights)
    if module == 'VisionTransformer':
        return _stage(config, weights)
    if module not in ('Attention', 'Block'):
        raise ValueError(f'unknown module {module!r}')
    _norm_eps(config)
    config.ignore(layout=('B,N,C',), stride_q=(1,), with_cls_token=...)
    config.ignore(attn_drop=..., proj_drop=..., drop=..., drop_path=...)
    channels, size = config.take('dim_out'), config.take('hw')
    if config.take('dim_in', default=channels) != channels:
        raise ValueError('cannot map dim_in that is not dim_out')
    kernel = config.take('kernel', 'kernel_size', default=3)
    _check_padding(config, [kernel])
    attn = ConvolutionalProjectionAttention(
        channels,
        config.take('num_heads'),
        config.take('method', default='dw_bn'),
        kernel,
        config.take('stride_kv', default=1),
        config.take('qkv_bias', default=False),
    )
    if module == 'Attention':
        config.done()
        state = convert_part(weights, *(part + 'attn.' for part in PART), 'cvt')
        return _Sized(load(attn, state), size)
    block = CvTBlock(channels, attn, config.take('mlp_ratio', default=4.0))
    config.done()
    return _Sized(load(block, convert_part(weights, *PART, 'cvt')), size)
