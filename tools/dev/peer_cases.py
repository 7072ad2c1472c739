"""Small networks of other libraries: names of their tensors, and what they compute.

    python tools/dev/peer_cases.py [SOURCE ...]

writes ``tests/convert/data/<source>.json``, with those libraries in reach of Python; VAN, NAT and
DiNAT are in transformers up to 4.39. A file has one list of cases. A case has the names and shapes
of a state dict, whose values follow from the names (:func:`drawn`), and outputs in double precision
at a few places: so a converter is tested against the library's own numbers without the library.
"""

import argparse
import importlib
import importlib.util
import json
import math
import sys
import types
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[2] / 'tests/convert/data'
VALUES = 24  # of every output that are stored
_TABLES = ('pos', 'table', 'rpb', 'attention_biases', 'token', 'cls')


def drawn(name: str, shape: Sequence[int]) -> Tensor:
    """Draw the values of a tensor, which its name and shape tell: none is zero, one, or repeated.

    Variances are in 0.2..1 and factors of norms in 0.4..1.2, weights have a variance of one over
    their inputs, so that every tensor matters for the outputs.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.uniform(-1, 1, shape)
    leaf = name.replace('/', '.').rsplit('.', 1)[-1]
    if leaf == 'running_var':
        values = 0.6 + 0.4 * values
    elif len(shape) < 2 and leaf in ('weight', 'scale', 'gamma', 'gamma_1', 'gamma_2'):
        values = 0.8 + 0.4 * values
    elif len(shape) < 2:
        values = 0.5 * values
    elif not any(part in name for part in _TABLES):
        values = values * math.sqrt(3 / math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values))


def state_dict(case: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict of a stored case; what follows from sizes, such as an index, is zero."""
    floating = {k: drawn(k, shape) for k, shape in case['tensors'].items()}
    whole = {k: torch.zeros(shape, dtype=torch.int64) for k, shape in case['integers'].items()}
    return floating | whole


def image(case: dict[str, Any]) -> Tensor:
    """The input of a stored case."""
    return drawn('pixels', case['image']) * 2


def places(output: Tensor) -> list[float]:
    """Values of an output at places spread over it."""
    return output.flatten()[:: max(1, output.numel() // VALUES)].tolist()


@dataclass
class Peer:
    """A network of another library.

    Attributes:
        source: Name of its layout in ``hybrid_mm.convert.SOURCES``.
        name: What the library calls it, with its arguments.
        make: Makes it.
        run: Computes its outputs.
        ours: Our network: ``type`` and arguments.
        image: Shape of the input.
        logits: The outputs are the classes' logits, else the maps.
        adjust: Attributes of modules of ours, by the end of the module's name, in which the
            library's computation differs and ours has no argument.
        file: Name that such a file has.
        package: Package whose version is noted.
        versions: Major versions that have it with these names.
    """

    source: str
    name: str
    make: Callable[[], nn.Module]
    run: Callable[[nn.Module, Tensor], Sequence[Tensor]]
    ours: dict[str, Any]
    image: tuple[int, ...] = (1, 3, 64, 64)
    logits: bool = False
    adjust: dict[str, dict[str, Any]] = field(default_factory=dict)
    file: str = 'pytorch_model.bin'
    package: str = 'transformers'
    versions: tuple[int, ...] = ()

    def missing(self) -> str | None:
        """Why it cannot be made here, if so."""
        try:
            version = importlib.import_module(self.package).__version__
        except ImportError as error:
            return str(error)
        if self.versions and int(version.split('.')[0]) not in self.versions:
            return f'{self.package} {version} is not of versions {self.versions}'
        return None

    def case(self) -> dict[str, Any]:
        """Run it: a case as it is stored."""
        torch.manual_seed(0)
        model = self.make().double()
        model.eval()  # of which some give nothing back
        case: dict[str, Any] = dict(
            peer=f'{self.package} {importlib.import_module(self.package).__version__}: {self.name}',
            ours=self.ours,
            adjust=self.adjust,
            file=self.file,
            logits=self.logits,
            image=list(self.image),
            integers={},
            tensors={},
        )
        values = {}
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                case['tensors'][key] = list(value.shape)
                values[key] = drawn(key, value.shape)
            else:
                case['integers'][key] = list(value.shape)
        model.load_state_dict(values, strict=False)
        with torch.no_grad():
            outputs = self.run(model, image(case))
        case['outputs'] = [[list(x.shape), [float(f'{v:.9g}') for v in places(x)]] for x in outputs]
        return case


# -- transformers ----------------------------------------------------------------------------------


def _neighborhood_scores(q: Tensor, k: Tensor, bias: Tensor, kernel: int, dilation: int) -> Tensor:
    """Logits (N, heads, H, W, kernel^2) of NAT, as natten's function, pixel by pixel."""
    out = q.new_zeros(*q.shape[:4], kernel**2)
    for row in range(q.shape[2]):
        rows, first_row = _window(row, q.shape[2], kernel, dilation)
        for column in range(q.shape[3]):
            columns, first_column = _window(column, q.shape[3], kernel, dilation)
            keys = k[:, :, rows][:, :, :, columns].flatten(2, 3)
            table = bias[:, first_row : first_row + kernel, first_column : first_column + kernel]
            logits = (keys * q[:, :, row, column, None]).sum(-1)
            out[:, :, row, column] = logits + table.flatten(1)
    return out


def _neighborhood_values(weights: Tensor, v: Tensor, kernel: int, dilation: int) -> Tensor:
    """Weighted sums of the neighbours' values, as natten's function."""
    out = torch.zeros_like(v)
    for row in range(v.shape[2]):
        rows, _ = _window(row, v.shape[2], kernel, dilation)
        for column in range(v.shape[3]):
            columns, _ = _window(column, v.shape[3], kernel, dilation)
            values = v[:, :, rows][:, :, :, columns].flatten(2, 3)
            out[:, :, row, column] = (weights[:, :, row, column, :, None] * values).sum(2)
    return out


def _window(place: int, length: int, kernel: int, dilation: int) -> tuple[list[int], int]:
    """Neighbours of a pixel on a line, and the entry of the table that belongs to the first."""
    same = list(range(place % dilation, length, dilation))
    index = same.index(place)
    first = min(max(index - kernel // 2, 0), len(same) - kernel)
    return same[first : first + kernel], first - index + kernel - 1


def _transformers(name: str) -> Any:
    """A class of transformers, also of a network that needs natten."""
    package = importlib.import_module('transformers')
    if name.startswith('Van'):
        part = 'configuration' if name.endswith('Config') else 'modeling'
        return getattr(
            importlib.import_module(f'transformers.models.deprecated.van.{part}_van'), name
        )
    if name.startswith(('Nat', 'Dinat')) and not name.endswith('Config'):
        folder = name.lower().split('for')[0].removesuffix('model').removesuffix('backbone')
        module = importlib.import_module(f'transformers.models.{folder}.modeling_{folder}')
        module.requires_backends = lambda *unused: None
        module.natten2dqkrpb = _neighborhood_scores
        module.natten2dav = _neighborhood_values
        return getattr(module, name)
    return getattr(package, name)


def _hidden(first: int, step: int = 1) -> Callable[[nn.Module, Tensor], list[Tensor]]:
    """The hidden states that are maps, from one of them on."""

    def run(model: nn.Module, x: Tensor) -> list[Tensor]:
        return list(model(x, output_hidden_states=True).hidden_states[first::step])

    return run


def _logits(model: nn.Module, x: Tensor) -> list[Tensor]:
    return [model(x).logits]


def _feature_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    return list(model(x).feature_maps)


def _hf(
    source: str,
    name: str,
    config: str,
    settings: dict[str, Any],
    ours: dict[str, Any],
    run: Callable[[nn.Module, Tensor], Sequence[Tensor]] = _logits,
    **kwargs: Any,
) -> Peer:
    text = ', '.join(f'{key}={value}' for key, value in settings.items())
    return Peer(
        source,
        f'{name}({text})',
        lambda: _transformers(name)(_transformers(config)(**settings)),
        run,
        ours,
        logits=run is _logits,
        **kwargs,
    )


def _van() -> list[Peer]:
    arch = dict(embed_dims=[4, 6], depths=[1, 2], mlp_ratios=[2, 3])
    theirs = dict(
        hidden_sizes=[4, 6],
        depths=[1, 2],
        mlp_ratios=[2, 3],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_labels=5,
        layer_scale_init_value=1.0,
    )
    old: dict[str, Any] = dict(versions=(4,))
    ours = dict(type='VAN', arch=arch, out_indices=[0, 1], ln_eps=1e-6)
    layers = dict(theirs, layer_norm_eps=1e-5, num_channels=1)
    return [
        _hf('van-huggingface', 'VanModel', 'VanConfig', theirs, ours, _hidden(0),
            image=(1, 3, 61, 97), **old),
        _hf('van-huggingface', 'VanForImageClassification', 'VanConfig', theirs,
            dict(ours, out_indices=[1]), file='model.safetensors', **old),
        _hf('van-huggingface', 'VanModel', 'VanConfig', layers,
            dict(ours, in_channels=1, ln_eps=1e-5), _hidden(0), image=(2, 1, 64, 32), **old),
    ]  # fmt: skip


def _cvt() -> list[Peer]:
    # depths of which the k-th is less than k are an error there
    theirs = dict(embed_dim=[4, 8, 12], num_heads=[1, 2, 3], depth=[1, 2, 3],
                  mlp_ratio=[2.0, 2.0, 3.0], num_labels=5)  # fmt: skip
    arch = dict(embed_dims=[4, 8, 12], heads=[1, 2, 3], depths=[1, 2, 3], mlp_ratios=[2, 2, 3],
                patch_sizes=[7, 3, 3], patch_strides=[4, 2, 2],
                patch_paddings=[2, 1, 1])  # fmt: skip
    ours = dict(type='CvT', arch=arch)
    two = dict(theirs, embed_dim=[4, 6, 8], num_heads=[2, 1, 4], patch_sizes=[5, 3, 3],
               kernel_qkv=[5, 3, 3], padding_q=[2, 1, 1], padding_kv=[2, 1, 1],
               qkv_bias=[False, False, True], stride_kv=[2, 2, 1],
               cls_token=[False, False, False])  # fmt: skip
    arch2 = dict(arch, embed_dims=[4, 6, 8], heads=[2, 1, 4], patch_sizes=[5, 3, 3])
    ours2 = dict(type='CvT', arch=arch2, kernel_size=[5, 3, 3], kv_stride=[2, 2, 1],
                 qkv_bias=[False, False, True],
                 with_cls_token=False)  # fmt: skip
    gelu = {'.mlp': {'forward': 'none'}}
    return [
        _hf('cvt-huggingface', 'CvtModel', 'CvtConfig', theirs, ours, _hidden(0), adjust=gelu,
            image=(1, 3, 64, 96)),
        _hf('cvt-huggingface', 'CvtForImageClassification', 'CvtConfig', theirs,
            dict(ours, pooled=True, out_indices=[2]), adjust=gelu, file='model.safetensors'),
        # the model itself ends in an error without class token
        _hf('cvt-huggingface', 'CvtModel', 'CvtConfig', two, ours2,
            lambda model, x: _hidden(0)(model.encoder, x), adjust=gelu),
    ]  # fmt: skip


def _levit_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The last map, from tokens of a square one."""
    x = model(x).last_hidden_state
    side = math.isqrt(x.shape[1])
    return [x.transpose(1, 2).unflatten(2, (side, side))]


def _levit() -> list[Peer]:
    theirs = dict(image_size=64, hidden_sizes=[16, 20, 24], num_attention_heads=[2, 3, 4],
                  depths=[1, 2, 1], key_dim=[4, 5, 6], num_labels=5)  # fmt: skip
    arch = dict(
        embed_dims=[16, 20, 24], key_dims=[4, 5, 6], heads=[2, 3, 4], depths=[1, 2, 1],
        mlp_ratios=[2, 2, 2], value_ratios=[2, 2, 2], shrink_heads=[None, 4, 5],
        shrink_key_dims=[None, 4, 4], shrink_value_ratios=[None, 4, 4],
        shrink_mlp_ratios=[None, 2, 2],
    )  # fmt: skip
    ours = dict(type='LeViT', arch=arch, img_size=64, out_indices=[4])
    wide = dict(theirs, image_size=96, attention_ratio=[1, 2, 3], mlp_ratio=[1, 2, 3])
    arch2 = dict(arch, value_ratios=[1, 2, 3], mlp_ratios=[1, 2, 3])
    return [
        _hf('levit-huggingface', 'LevitModel', 'LevitConfig', theirs, ours, _levit_maps),
        _hf('levit-huggingface', 'LevitForImageClassification', 'LevitConfig', theirs,
            dict(ours, pooled=True), file='model.safetensors'),
        _hf('levit-huggingface', 'LevitForImageClassificationWithTeacher', 'LevitConfig', theirs,
            dict(ours, pooled=True)),
        _hf('levit-huggingface', 'LevitModel', 'LevitConfig', wide,
            dict(ours, arch=arch2, img_size=96), _levit_maps, image=(1, 3, 96, 96)),
    ]  # fmt: skip


def _tokens(blocks: Sequence[int], size: tuple[int, int], extra: int = 1):
    """Hidden states after these blocks, as maps of a size."""

    def run(model: nn.Module, x: Tensor) -> list[Tensor]:
        states = model(x, output_hidden_states=True).hidden_states
        return [states[i + 1][:, extra:].transpose(1, 2).unflatten(2, size) for i in blocks]

    return run


def _last_token(model: nn.Module, x: Tensor) -> list[Tensor]:
    return [model(x).last_hidden_state[:, 0]]


def _vit(source: str = 'vit-huggingface', version: int = 4) -> list[Peer]:
    theirs = dict(hidden_size=12, num_hidden_layers=3, num_attention_heads=3, intermediate_size=24,
                  image_size=32, patch_size=8, num_labels=5)  # fmt: skip
    ours = dict(type='ViT', arch=dict(embed_dim=12, heads=3, depths=[1, 1, 1]), patch_size=8,
                pretrain_img_size=32, img_size=32, mlp_ratio=2, out_indices=[0, 1, 2],
                norm_eps=1e-12)  # fmt: skip
    classes = dict(ours, out_indices=[2], pooled=True, final_norm=True)
    small = (1, 3, 32, 32)
    wide = dict(theirs, qkv_bias=False, image_size=(16, 48), num_channels=1, patch_size=16,
                intermediate_size=36, layer_norm_eps=1e-6)  # fmt: skip
    ours2 = dict(ours, qkv_bias=False, pretrain_img_size=[16, 48], in_channels=1, patch_size=16,
                 img_size=[16, 48], mlp_ratio=3, norm_eps=1e-6)  # fmt: skip
    mae = dict(theirs, mask_ratio=0.0, decoder_hidden_size=8, decoder_num_hidden_layers=1,
               decoder_num_attention_heads=1, decoder_intermediate_size=8)  # fmt: skip

    def whole(model: nn.Module, x: Tensor) -> list[Tensor]:
        """Without masks, a random order of the patches is left, which is undone."""
        output = model.vit(x)
        order = output.ids_restore[..., None].expand(-1, -1, x.shape[1] * 4)
        tokens = output.last_hidden_state[:, 1:].gather(1, order)
        return [tokens.transpose(1, 2).unflatten(2, (4, 4))]

    kwargs: dict[str, Any] = dict(image=small, versions=(version,))
    return [
        _hf(source, 'ViTModel', 'ViTConfig', theirs, ours,
            _tokens([0, 1, 2], (4, 4)), **kwargs),
        _hf(source, 'ViTModel', 'ViTConfig', theirs, classes, _last_token, **kwargs,
            file='model.safetensors'),
        _hf(source, 'ViTForImageClassification', 'ViTConfig', theirs, classes,
            **kwargs),
        _hf(source, 'ViTForMaskedImageModeling', 'ViTConfig', theirs, ours,
            _tokens([0, 1, 2], (4, 4)), **kwargs),
        _hf(source, 'ViTModel', 'ViTConfig', wide, ours2,
            _tokens([0, 1, 2], (1, 3)), image=(1, 1, 16, 48), versions=(version,)),
        _hf(source, 'ViTMAEForPreTraining', 'ViTMAEConfig', mae,
            dict(ours, out_indices=[2], final_norm=True), whole, **kwargs),
    ]  # fmt: skip


def _vitdet() -> list[Peer]:
    theirs = dict(hidden_size=12, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2,
                  image_size=64, pretrain_image_size=32, patch_size=8, window_size=3,
                  window_block_indices=[0, 2], residual_block_indices=[1],
                  use_relative_position_embeddings=True)  # fmt: skip
    ours = dict(type='ViT', arch=dict(embed_dim=12, heads=2, depths=[2, 2]), patch_size=8,
                pretrain_img_size=32, img_size=64, mlp_ratio=2, window_size=3, relative=True,
                residual_blocks=[1], class_token=False, out_indices=[0, 1])  # fmt: skip
    plain = dict(theirs, use_relative_position_embeddings=False, qkv_bias=False, window_size=0,
                 window_block_indices=[], residual_block_indices=[])  # fmt: skip
    ours2 = dict(ours, relative=False, qkv_bias=False, window_size=None, residual_blocks=[])
    return [
        _hf('vitdet-huggingface', 'VitDetModel', 'VitDetConfig', theirs, ours,
            _hidden(2, 2)),
        _hf('vitdet-huggingface', 'VitDetBackbone', 'VitDetConfig',
            dict(theirs, out_features=['stage2', 'stage4']), ours, _feature_maps,
            file='model.safetensors'),
        _hf('vitdet-huggingface', 'VitDetModel', 'VitDetConfig', plain, ours2, _hidden(2, 2)),
    ]  # fmt: skip


def _pvt() -> list[Peer]:
    theirs = dict(image_size=64, hidden_sizes=[4, 6, 8, 12], depths=[1, 1, 1, 2],
                  num_attention_heads=[1, 2, 2, 3], mlp_ratios=[2, 2, 3, 3],
                  sequence_reduction_ratios=[8, 4, 2, 1], num_labels=5)  # fmt: skip
    arch = dict(embed_dims=[4, 6, 8, 12], depths=[1, 1, 1, 2], heads=[1, 2, 2, 3],
                mlp_ratios=[2, 2, 3, 3], reductions=[8, 4, 2, 1])  # fmt: skip
    ours = dict(type='PVT', arch=arch, img_size=64)
    eps = {'.embed.norm': {'eps': 1e-6}, '.attn.norm': {'eps': 1e-6}}

    def maps(model: nn.Module, x: Tensor) -> list[Tensor]:
        """All but the last one, which a class token takes part in there."""
        states = model(x, output_hidden_states=True).hidden_states[:3]
        rows, columns = x.shape[2] // 4, x.shape[3] // 4
        return [
            state.transpose(1, 2).unflatten(2, (rows >> i, columns >> i))
            for i, state in enumerate(states)
        ]

    plain = dict(theirs, qkv_bias=False, sequence_reduction_ratios=[4, 2, 1, 1])
    ours2 = dict(ours, qkv_bias=False, arch=dict(arch, reductions=[4, 2, 1, 1]))
    return [
        _hf('pvt-huggingface', 'PvtModel', 'PvtConfig', theirs, dict(ours, out_indices=[0, 1, 2]),
            maps, adjust=eps),
        _hf('pvt-huggingface', 'PvtForImageClassification', 'PvtConfig', theirs,
            dict(ours, out_indices=[3], class_token=True), adjust=eps, file='model.safetensors'),
        _hf('pvt-huggingface', 'PvtForImageClassification', 'PvtConfig', plain,
            dict(ours2, out_indices=[3], class_token=True),
            adjust={'stages.0.blocks.0.attn.norm': {'eps': 1e-6},
                    'stages.1.blocks.0.attn.norm': {'eps': 1e-6}, '.embed.norm': {'eps': 1e-6}}),
    ]  # fmt: skip


def _nat() -> list[Peer]:
    theirs = dict(embed_dim=4, depths=[1, 2], num_heads=[1, 2], kernel_size=3, mlp_ratio=2.0,
                  layer_scale_init_value=0.1, num_labels=5)  # fmt: skip
    arch = dict(embed_dim=4, depths=[1, 2], heads=[1, 2], mlp_ratio=2.0, layer_scale=0.1)
    ours = dict(type='NAT', arch=arch, kernel_size=3, out_indices=[0, 1])
    names = dict(theirs, out_features=['stage1', 'stage2'])
    plain = dict(theirs, layer_scale_init_value=0.0, kernel_size=5, qkv_bias=False,
                 dilations=[[1], [1, 2]])  # fmt: skip
    ours2 = dict(type='DiNAT', arch=dict(arch, layer_scale=None), kernel_size=5, qkv_bias=False,
                 dilations=[[1], [1, 2]])  # fmt: skip
    old: dict[str, Any] = dict(versions=(4,))
    large = dict(old, image=(1, 3, 80, 84))
    return [
        _hf('nat-huggingface', 'NatBackbone', 'NatConfig', names, ours, _feature_maps, **old),
        _hf('nat-huggingface', 'NatForImageClassification', 'NatConfig', theirs,
            dict(ours, out_indices=[1]), file='model.safetensors', **old),
        _hf('nat-huggingface', 'DinatForImageClassification', 'DinatConfig', plain,
            dict(ours2, out_indices=[1]), **large),
        _hf('nat-huggingface', 'DinatBackbone', 'DinatConfig',
            dict(plain, qkv_bias=True, out_features=['stage1', 'stage2']),
            dict(ours2, qkv_bias=True, out_indices=[0, 1]), _feature_maps, **large),
    ]  # fmt: skip


# -- OpenMMLab -------------------------------------------------------------------------------------


def _openmmlab(
    source: str,
    package: str,
    name: str,
    settings: dict[str, Any],
    ours: dict[str, Any],
    **kwargs: Any,
) -> Peer:
    text = ', '.join(f'{key}={value}' for key, value in settings.items())

    def make() -> nn.Module:
        models = importlib.import_module(f'{package}.models.backbones')
        return getattr(models, name)(**settings)

    kwargs = dict(package=package, file='backbone.pth') | kwargs
    return Peer(source, f'{name}({text})', make, lambda model, x: list(model(x)), ours, **kwargs)


def _vit_mmseg() -> list[Peer]:
    theirs = dict(img_size=(32, 48), patch_size=8, embed_dims=12, num_layers=3, num_heads=3,
                  mlp_ratio=2, out_indices=(0, 2), norm_cfg=dict(type='LN', eps=1e-6),
                  patch_bias=True)  # fmt: skip
    arch = dict(embed_dim=12, heads=3, depths=[1, 2])
    ours = dict(type='ViT', arch=arch, patch_size=8, pretrain_img_size=[32, 48], mlp_ratio=2,
                img_size=32, out_indices=[0, 1])  # fmt: skip
    plain = dict(theirs, qkv_bias=False, patch_bias=False, with_cls_token=False, final_norm=True)
    mae = {key: value for key, value in theirs.items() if key != 'patch_bias'}
    return [
        _openmmlab('vit-mmseg', 'mmseg', 'VisionTransformer', theirs, ours, image=(1, 3, 32, 48)),
        _openmmlab('vit-mmseg', 'mmseg', 'VisionTransformer', theirs, ours, image=(2, 3, 41, 57)),
        _openmmlab('vit-mmseg', 'mmseg', 'VisionTransformer', plain,
                   dict(ours, qkv_bias=False, class_token=False, final_norm=True)),
        _openmmlab('vit-mmseg', 'mmseg', 'VisionTransformer',
                   dict(plain, pre_norm=True, with_cls_token=True),
                   dict(ours, qkv_bias=False, pre_norm=True, final_norm=True)),
        _openmmlab('vit-mmseg', 'mmseg', 'MAE', dict(mae, init_values=0.5, final_norm=True),
                   dict(ours, img_size=[32, 48], relative='bias', layer_scale=0.5,
                        final_norm=True), image=(1, 3, 32, 48)),
    ]  # fmt: skip


def _vit_mmpretrain() -> list[Peer]:
    # 24 patches and a class token: 25 is the number of a square map, too
    theirs = dict(arch=dict(embed_dims=12, num_layers=3, num_heads=3, feedforward_channels=24),
                  img_size=(32, 48), patch_size=8, out_indices=(0, 2), final_norm=False,
                  out_type='featmap')  # fmt: skip
    ours = dict(type='ViT', arch=dict(embed_dim=12, heads=3, depths=[1, 2]), patch_size=8,
                pretrain_img_size=[32, 48], img_size=32, mlp_ratio=2,
                out_indices=[0, 1])  # fmt: skip
    scaled = dict(theirs, layer_scale_init_value=0.1, qkv_bias=False, final_norm=True)
    clip = dict(theirs, pre_norm=True, patch_cfg=dict(bias=False), out_type='cls_token',
                out_indices=-1, final_norm=True)  # fmt: skip
    return [
        _openmmlab('vit', 'mmpretrain', 'VisionTransformer', theirs, ours, image=(1, 3, 32, 48)),
        _openmmlab('vit', 'mmpretrain', 'VisionTransformer', scaled,
                   dict(ours, layer_scale=0.1, qkv_bias=False, final_norm=True),
                   image=(2, 3, 41, 57)),
        _openmmlab('vit', 'mmpretrain', 'VisionTransformer', clip,
                   dict(ours, pre_norm=True, pooled=True, final_norm=True, out_indices=[1]),
                   image=(1, 3, 32, 48)),
    ]  # fmt: skip


def _pvt_mmdet() -> list[Peer]:
    theirs = dict(pretrain_img_size=64, embed_dims=4, num_layers=[1, 1, 1, 2],
                  num_heads=[1, 2, 2, 3], sr_ratios=[8, 4, 2, 1], mlp_ratios=[2, 2, 3, 3],
                  drop_path_rate=0.0)  # fmt: skip
    arch = dict(embed_dims=[4, 8, 8, 12], depths=[1, 1, 1, 2], heads=[1, 2, 2, 3],
                mlp_ratios=[2, 2, 3, 3], reductions=[8, 4, 2, 1])  # fmt: skip
    ours = dict(type='PVT', arch=arch, img_size=64, partial_patches='drop')
    eps = {'.embed.norm': {'eps': 1e-6}, '.attn.norm': {'eps': 1e-6}}
    name = 'PyramidVisionTransformer'
    plain = dict(theirs, qkv_bias=False, out_indices=(1, 2), num_layers=[2, 1, 2, 1])
    return [
        _openmmlab('pvt-mmdet', 'mmdet', name, theirs, ours, adjust=eps),
        _openmmlab('pvt-mmdet', 'mmdet', name, theirs, ours, adjust=eps, image=(2, 3, 83, 103)),
        _openmmlab('pvt-mmdet', 'mmdet', name, plain,
                   dict(ours, qkv_bias=False, out_indices=[1, 2],
                        arch=dict(arch, depths=[2, 1, 2, 1])),
                   adjust=eps, image=(1, 3, 96, 64)),
    ]  # fmt: skip


def _van_mmpretrain() -> list[Peer]:
    theirs = dict(arch=dict(embed_dims=[4, 6, 8, 12], depths=[1, 2, 1, 1], ffn_ratios=[2, 3, 2, 2]),
                  out_indices=(0, 1, 2, 3))  # fmt: skip
    arch = dict(embed_dims=[4, 6, 8, 12], depths=[1, 2, 1, 1], mlp_ratios=[2, 3, 2, 2])
    return [
        _openmmlab('van-mmpretrain', 'mmpretrain', 'VAN', theirs,
                   dict(type='VAN', arch=arch), image=(1, 3, 61, 97)),
    ]  # fmt: skip


# -- google-research -------------------------------------------------------------------------------


def _google(name: str) -> Any:
    """A module of google-research/vision_transformer or big_vision, in double precision.

    Their files lie in a folder of that name in reach of Python; what a network needs of other
    modules is none of its computation.
    """
    for other in ('absl', 'absl.logging', 'big_vision.utils', 'big_vision.models.common'):
        if importlib.util.find_spec(other.partition('.')[0]) is None or other.startswith('big'):
            sys.modules.setdefault(other, types.ModuleType(other))
    for parent, child in (('absl', 'logging'), ('big_vision', 'utils')):
        setattr(importlib.import_module(parent), child, sys.modules.get(f'{parent}.{child}'))
    importlib.import_module('big_vision.models').common = sys.modules['big_vision.models.common']
    importlib.import_module('jax').config.update('jax_enable_x64', True)
    spec = importlib.util.find_spec(name)
    source = Path(spec.origin).read_text().replace('float32', 'float64')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    exec(compile(source, spec.origin, 'exec'), vars(module))
    return module


class JaxNetwork:
    """A Flax network with the methods of torch's that a case needs."""

    def __init__(self, network: Any, image: tuple[int, ...], prefix: str) -> None:
        jax = importlib.import_module('jax')
        self.network, self.prefix = network, prefix
        pixels = np.zeros((image[0], *image[2:], image[1]))
        params = network.init(jax.random.PRNGKey(0), pixels, train=False)['params']
        self.params = importlib.import_module('flax').traverse_util.flatten_dict(params, sep='/')

    def double(self) -> 'JaxNetwork':
        """As it is: the module was made so."""
        return self

    def eval(self) -> None:
        """As it is called, without dropout."""

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters by path, as in a file."""
        return {self.prefix + k: torch.tensor(np.asarray(v)) for k, v in self.params.items()}

    def load_state_dict(self, values: dict[str, Tensor], strict: bool = True) -> None:
        """Set the parameters."""
        self.params = {k.removeprefix(self.prefix): v.numpy() for k, v in values.items()}

    def __call__(self, x: Tensor) -> Any:
        """Outputs of images (N, C, H, W)."""
        unflatten = importlib.import_module('flax').traverse_util.unflatten_dict
        pixels = x.permute(0, 2, 3, 1).numpy()
        return self.network.apply({'params': unflatten(self.params, sep='/')}, pixels, train=False)


def _vit_google() -> list[Peer]:
    ours = dict(type='ViT', arch=dict(embed_dim=12, heads=3, depths=[1, 1]), patch_size=8,
                pretrain_img_size=32, img_size=32, mlp_ratio=2, out_indices=[1],
                final_norm=True)  # fmt: skip
    image = (2, 3, 32, 32)
    old = dict(num_classes=5, patches=types.SimpleNamespace(size=(8, 8)), hidden_size=12,
               transformer=dict(num_layers=2, mlp_dim=24, num_heads=3, dropout_rate=0.0,
                                attention_dropout_rate=0.0))  # fmt: skip
    new = dict(num_classes=5, patch_size=(8, 8), width=12, depth=2, mlp_dim=24, num_heads=3,
               pool_type='tok')  # fmt: skip

    def classes(model: Any, x: Tensor) -> list[Tensor]:
        out = model(x)
        return [torch.tensor(np.asarray(out[0] if isinstance(out, tuple) else out))]

    def maps(model: Any, x: Tensor) -> list[Tensor]:
        out = model(x)
        out = np.asarray(out[1]['encoded'] if isinstance(out, tuple) else out)[:, -16:]
        return [torch.tensor(out).transpose(1, 2).unflatten(2, (4, 4))]

    def peer(name: str, settings: dict, run: Any, prefix: str, **kwargs: Any) -> Peer:
        module = {'VisionTransformer': 'vit_jax.models_vit', '_Model': 'big_vision.models.vit'}
        text = ', '.join(f'{key}={value}' for key, value in settings.items())
        return Peer(
            'vit-google',
            f'{module[name]}.{name}({text})',
            lambda: JaxNetwork(getattr(_google(module[name]), name)(**settings), image, prefix),
            run,
            image=image,
            package='flax',
            file='ViT.npz',
            adjust={'.mlp': {'forward': 'tanh'}},
            logits=run is classes,
            **kwargs,
        )

    pooled = dict(ours, pooled=True)
    return [
        peer('VisionTransformer', old, classes, '', ours=pooled),
        peer('VisionTransformer', dict(old, representation_size=7), classes, 'opt/target/',
             ours=pooled),
        peer('VisionTransformer', dict(old, num_classes=None, classifier='token_unpooled'), maps,
             'opt/target/', ours=ours),
        peer('_Model', new, classes, 'params/', ours=pooled),
        peer('_Model', dict(new, scan=True, pool_type='gap', num_classes=None), maps, 'params/',
             ours=dict(ours, class_token=False)),
        peer('_Model', dict(new, pool_type='map'), maps, '', ours=dict(ours, class_token=False)),
    ]  # fmt: skip


# -- timm ------------------------------------------------------------------------------------------


def _outputs_of(*names: str) -> Callable[[nn.Module, Tensor], list[Tensor]]:
    """Outputs of modules, in the order of the names."""

    def run(model: nn.Module, x: Tensor) -> list[Tensor]:
        outputs: dict[str, Tensor] = {}
        hooks = [
            model.get_submodule(name).register_forward_hook(
                lambda m, i, out, name=name: outputs.update({name: out})
            )
            for name in names
        ]
        model(x)
        for hook in hooks:
            hook.remove()
        return [outputs[name] for name in names]

    return run


def _stages(*more: str) -> Callable[[nn.Module, Tensor], list[Tensor]]:
    """Maps of four stages, the last one by way of more modules."""
    return _outputs_of('stages.0', 'stages.1', 'stages.2', *(more or ('stages.3',)))


def _timm(
    source: str,
    name: str,
    make: Callable[[Any], nn.Module],
    run: Callable[[nn.Module, Tensor], Sequence[Tensor]],
    ours: dict[str, Any],
    **kwargs: Any,
) -> Peer:
    """A network of timm, which ``make`` makes from the module of this name in ``timm.models``."""
    return Peer(
        source,
        name,
        lambda: make(importlib.import_module(f'timm.models.{name.partition(".")[0]}')),
        run,
        ours,
        package='timm',
        **kwargs,
    )


def _timm_vit() -> list[Peer]:
    def blocks(extra: int, norm: str | None = None):
        def run(model: nn.Module, x: Tensor) -> list[Tensor]:
            names = ['blocks.0', norm or 'blocks.1']
            outputs = _outputs_of(*names)(model, x)
            return [out[:, extra:].transpose(1, 2).unflatten(2, (4, 6)) for out in outputs]

        return run

    shared = dict(img_size=(32, 48), patch_size=8, embed_dim=12, depth=2, num_heads=3, mlp_ratio=2,
                  num_classes=5)  # fmt: skip
    ours = dict(type='ViT', arch=dict(embed_dim=12, heads=3, depths=[1, 1]), patch_size=8,
                pretrain_img_size=[32, 48], img_size=[32, 48], mlp_ratio=2,
                out_indices=[0, 1])  # fmt: skip
    square = dict(ours, pretrain_img_size=32, img_size=32)

    def vit(run: Any, arguments: dict[str, Any], ours: dict[str, Any], **kwargs: Any) -> Peer:
        text = ', '.join(f'{key}={value}' for key, value in arguments.items())
        return _timm(
            'vit',
            f'vision_transformer.VisionTransformer({text})',
            lambda module: module.VisionTransformer(**{**shared, **arguments}),
            run,
            ours,
            **{**dict(image=(1, 3, 32, 48)), **kwargs},
        )

    def whole(model: nn.Module, x: Tensor) -> list[Tensor]:
        outputs = _outputs_of('blocks.0', 'blocks.1')(model, x)
        return [out[:, -16:].transpose(1, 2).unflatten(2, (4, 4)) for out in outputs]

    def last(model: nn.Module, x: Tensor) -> list[Tensor]:
        return [_outputs_of('norm')(model, x)[0].transpose(1, 2).unflatten(2, (4, 4))]

    small = dict(image=(1, 3, 32, 32))
    return [
        vit(blocks(1, 'norm'), {}, dict(ours, final_norm=True)),  # 25 positions, as of 5 x 5
        vit(blocks(1), dict(global_pool='avg', qkv_bias=False), dict(ours, qkv_bias=False)),
        vit(whole, dict(no_embed_class=True, init_values=0.1, img_size=32),
            dict(square, layer_scale=1.0), file='model.safetensors', **small),
        vit(blocks(0), dict(class_token=False, global_pool='map'), dict(ours, class_token=False)),
        vit(last, dict(norm_layer=nn.LayerNorm, img_size=32, class_token=False, global_pool=''),
            dict(square, class_token=False, norm_eps=1e-5, final_norm=True, out_indices=[1]),
            **small),
        vit(whole, dict(pre_norm=True, norm_layer=nn.LayerNorm, img_size=32),
            dict(square, pre_norm=True, norm_eps=1e-5), **small),
    ]  # fmt: skip


def _timm_sam() -> list[Peer]:
    theirs = dict(img_size=64, patch_size=8, embed_dim=12, depth=2, num_heads=2, mlp_ratio=2,
                  window_size=3, global_attn_indexes=(1,), neck_chans=4)  # fmt: skip
    ours = dict(type='ViT', arch=dict(embed_dim=12, heads=2, depths=[1, 1]), patch_size=8,
                pretrain_img_size=64, img_size=64, mlp_ratio=2, window_size=3, relative=True,
                global_blocks=[1], class_token=False, norm_eps=1e-5,
                out_indices=[0, 1])  # fmt: skip

    def run(model: nn.Module, x: Tensor) -> list[Tensor]:
        return [out.permute(0, 3, 1, 2) for out in _outputs_of('blocks.0', 'blocks.1')(model, x)]

    def sam(**more: Any) -> Peer:
        arguments = dict(theirs, use_rel_pos=True, **more)
        return _timm(
            'vit',
            f'vision_transformer_sam.VisionTransformerSAM({more})',
            lambda module: module.VisionTransformerSAM(**arguments),
            run,
            ours,
        )

    return [sam(), sam(use_abs_pos=False)]


def _timm_mvitv2() -> list[Peer]:
    arch = dict(embed_dim=4, heads=1, depths=[1, 2, 1, 1])
    ours = dict(type='MViTv2', arch=arch, img_size=64, window_size=None, double_kv_stride=False,
                out_indices=[3])  # fmt: skip

    def mvit(**more: Any) -> Peer:
        def make(module: Any) -> nn.Module:
            arguments = dict(depths=(1, 2, 1, 1), embed_dim=4, num_heads=1, **more)
            config = module.MultiScaleVitCfg(**arguments)
            return module.MultiScaleVit(config, img_size=64, num_classes=5)

        def run(model: nn.Module, x: Tensor) -> list[Tensor]:
            (tokens,) = _outputs_of('norm')(model, x)
            return [tokens.transpose(1, 2).unflatten(2, (2, 2))]

        wide = dict(ours, dim_mul_in_att=more.get('expand_attn', True))
        return _timm('mvitv2', f'mvitv2.MultiScaleVit({more})', make, run, wide)

    return [mvit(), mvit(expand_attn=False)]


def _timm_byobnet() -> list[Peer]:
    def byob(ours: str, final: bool, attention: str, kwargs: dict[str, Any], **more: Any) -> Peer:
        shared = dict(s=2, gs=more.pop('gs', 0), br=more.pop('br', 0.25))
        width = more.pop('width', 32)
        stages = [
            dict(type='bottle', d=1, c=width, **dict(shared, s=1)),
            dict(types=['bottle', 'self_attn'], d=2, c=width, **shared),
            dict(type='bottle', d=1, c=2 * width, **shared),
            dict(type='self_attn', d=1, c=2 * width, **shared),
        ]
        fields = dict(stem_chs=8, stem_type='tiered', stem_pool='', self_attn_layer=attention,
                      self_attn_kwargs=kwargs, **more)  # fmt: skip

        def make(module: Any) -> nn.Module:
            blocks = [
                (module.interleave_blocks if 'types' in stage else module.ByoBlockCfg)(**stage)
                for stage in stages
            ]
            config = module.ByoModelCfg(blocks=tuple(blocks), **fields)
            return module.ByobNet(config, num_classes=5, img_size=64)

        network = dict(type=ours, arch=dict(fields, blocks=stages), final_conv=final)
        if ours == 'BoTNet':
            network['canvas_size'] = 64
        run = _stages('final_conv') if final else _stages()
        return _timm('timm-byobnet', f'byobnet.ByobNet({fields})', make, run, network)

    se = dict(act_layer='silu', attn_layer='se', num_features=12)
    regnetz = dict(downsample='', num_features=12, act_layer='silu', attn_layer='se', gs=8, br=2,
                   width=16, attn_kwargs=dict(rd_ratio=0.25),
                   block_kwargs=dict(bottle_in=True, linear_out=True))  # fmt: skip
    eca = dict(act_layer='silu', attn_layer='eca', gs=4)
    halo: dict[str, Any] = dict(block_size=4, halo_size=1, num_heads=2)
    return [
        byob('HaloNet', True, 'halo', halo, **se),
        byob('HaloNet', False, 'halo', halo, **se),  # detectors do without the last convolution
        byob('HaloNet', True, 'halo', dict(halo, qk_ratio=0.5), **regnetz),
        byob('BoTNet', False, 'bottleneck', dict(num_heads=2), **se),
        byob('BoTNet', False, 'bottleneck', dict(num_heads=2, dim_head=4), **eca),
    ]


def _timm_maxxvit(source: str) -> list[Peer]:
    network = 'MaxViT' if source == 'maxvit' else 'CoAtNet'
    kinds = ['M'] * 4 if source == 'maxvit' else ['C', 'C', 'T', 'T']

    def maxxvit(conv: dict[str, Any], attention: dict[str, Any], **more: Any) -> Peer:
        fields = dict(embed_dim=[8, 12, 16, 20], depths=[1, 1, 2, 1], block_type=kinds,
                      stem_width=[4, 8], **more)  # fmt: skip
        attention = dict(dim_head=4, **attention)

        def make(module: Any) -> nn.Module:
            config = module.MaxxVitCfg(
                **fields,
                conv_cfg=module.MaxxVitConvCfg(**conv),
                transformer_cfg=module.MaxxVitTransformerCfg(**attention),
            )
            return module.MaxxVit(config, img_size=64, num_classes=5)

        arch = dict(fields, conv_cfg=conv, transformer_cfg=attention)
        size = dict(window_size=2) if source == 'maxvit' else dict(img_size=64)
        name = f'maxxvit.MaxxVit({conv}, {attention}, {more})'
        return _timm(source, name, make, _stages(), dict(type=network, arch=arch, **size))

    rw = dict(expand_output=False, output_bias=False, act_layer='silu', attn_ratio=1 / 16)
    mlp = dict(expand_first=False, rel_pos_type='mlp', rel_pos_dim=6)
    tf = dict(norm_eps=1e-5, act_layer='gelu_tanh', head_first=False, rel_pos_type='bias_tf')
    if source == 'maxvit':
        return [
            maxxvit(rw, dict(mlp, init_values=1e-6), head_hidden_size=6),
            maxxvit(rw, dict(expand_first=False)),
            maxxvit(dict(norm_eps=1e-3, act_layer='gelu_tanh', padding='same'), tf, stem_bias=True),
        ]
    early = dict(rw, pre_norm_act=True, attn_early=True, attn_act_layer='relu', pool_type='max',
                 stride_mode='pool')  # fmt: skip
    return [
        maxxvit(early, dict(mlp, shortcut_bias=False, pool_type='max')),
        maxxvit(dict(rw, stride_mode='pool'), dict(expand_first=False, init_values=1e-6)),
        maxxvit({}, {}),
    ]


def _timm_resnet() -> list[Peer]:
    run = _outputs_of('layer1', 'layer2', 'layer3', 'layer4')
    widths: dict[str, Any] = dict(depth=50, base_channels=4, stem_channels=4)

    def resnet(name: str, arguments: dict[str, Any], ours: dict[str, Any]) -> Peer:
        def make(module: Any) -> nn.Module:
            block = importlib.import_module('timm.models.resnet').Bottleneck
            return module.ResNet(
                **{**dict(block=getattr(module, name, block), layers=[3, 4, 6, 3], num_classes=5,
                          channels=(4, 8, 16, 32)), **arguments}
            )  # fmt: skip

        module = 'sknet' if name.startswith('Selective') else 'resnet'
        network = dict(type='AttentionResNet', base='hybrid_mm.PluginResNet', **{**widths, **ours})
        return _timm('attention-modules', f'{module}.ResNet({arguments})', make, run, network)

    def plugin(name: str, **kwargs: Any) -> list[dict[str, Any]]:
        return [dict(cfg=dict(type=f'hybrid_mm.{name}', **kwargs), position='after_conv3')]

    deep = dict(stem_width=2, stem_type='deep', avg_down=True)
    return [
        resnet('Bottleneck', dict(deep, block_args=dict(attn_layer='se')),
               dict(plugins=plugin('SE'), deep_stem=True, avg_down=True)),
        resnet('SelectiveKernelBottleneck',
               dict(block_args=dict(sk_kwargs=dict(rd_divisor=4))),
               dict(stem_channels=64,
                    conv2=dict(cfg=dict(type='hybrid_mm.SelectiveKernel', divisor=4,
                                        min_channels=4, split_input=True)))),
    ]  # fmt: skip


PEERS: dict[str, Callable[[], list[Peer]]] = {
    'van-huggingface': _van,
    'cvt-huggingface': _cvt,
    'levit-huggingface': _levit,
    'vit-huggingface': _vit,
    'vit-huggingface5': lambda: _vit('vit-huggingface5', 5),
    'vitdet-huggingface': _vitdet,
    'pvt-huggingface': _pvt,
    'nat-huggingface': _nat,
    'vit-google': _vit_google,
    'vit-mmseg': _vit_mmseg,
    'pvt-mmdet': _pvt_mmdet,
    'van-mmpretrain': _van_mmpretrain,
    'vit': lambda: _vit_mmpretrain() + _timm_vit() + _timm_sam(),
    'mvitv2': _timm_mvitv2,
    'timm-byobnet': _timm_byobnet,
    'maxvit': lambda: _timm_maxxvit('maxvit'),
    'coatnet': lambda: _timm_maxxvit('coatnet'),
    'attention-modules': _timm_resnet,
}


def write(source: str) -> None:
    """Write the cases of a source, or say why they cannot be made here."""
    missing = PEERS[source]()[0].missing()
    if missing:
        print(f'{source}: {missing}')
        return
    cases = [peer.case() for peer in PEERS[source]()]
    lines = [json.dumps(case, indent=None) for case in cases]
    path = FOLDER / f'{source}.json'
    path.write_text('[\n' + ',\n'.join(lines) + '\n]\n')
    print(f'{path}: {len(cases)} cases, {path.stat().st_size // 1000} kB')


def main(argv: list[str] | None = None) -> None:
    """Write the cases of some or all sources."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('sources', nargs='*', metavar='SOURCE', help='all by default')
    for name in parser.parse_args(argv).sources or PEERS:
        write(name)


if __name__ == '__main__':
    main()
