"""Local attention: our algorithms against gathering, unfolding, NATTEN and timm's modules.

Operator: windows that move inwards at the border (neighborhood attention) with queries, keys and
values of head width 32 and a relative bias, all differentiated. Modules, at equal weights: 1x1
convolutions, attention over blocks of 8 with a halo of 3 (HaloNet) or over the whole map (BoTNet)
and relative logits, including the gradients of all weights.
"""

import functools
import importlib
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from hybrid_mm.benchmarks import peers
from hybrid_mm.benchmarks.core import Case
from hybrid_mm.ops.local_attention import block_attention, global_attention, local_attention

IMPLS = 'tiled', 'measured', 'reference'
PACKAGES = ('timm', 'natten')
WIDTH, BLOCK, HALO = 32, 8, 3


# (N, heads, H, W): 1/4 of a 224 x 224 batch, 1/4 and 1/16 of a detector's 800 x 1216
SHAPES = ((4, 2, 56, 56), (1, 2, 200, 304), (1, 8, 50, 76))
NAMES = {'reference': 'gather'}
LARGEST_GATHER = 8  # GiB of the gathered keys and values of all queries


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    shapes = ((1, 2, 12, 13),) if quick else SHAPES
    make = functools.partial(normal, torch.Generator().manual_seed(0), device, dtype)
    for shape in shapes:
        for window in (3,) if quick else (7, 13):
            yield moving(make, shape, window)
    for shape in shapes:
        yield _halo(make, shape)
    # over the whole map only where timm's logits, (H W)^2 per head, fit into the memory
    for n, heads, height, width in shapes[:1] if quick else ((4, 4, 14, 14), SHAPES[0], SHAPES[2]):
        yield _bottleneck(make, (n, heads, height, width))
    for side in (8, 16) if quick else (28, 56, 112, 224, 448):
        case = moving(make, (1, 2, side, side), shapes[0][0] if quick else 7)
        own = {name: f for name, f in case.candidates.items() if name in IMPLS}
        yield Case(f'pixels {side}x{side}', case.inputs, own, pixels=side**2)


def normal(
    generator: torch.Generator, device: torch.device, dtype: torch.dtype, *shape: int, std=1.0
) -> Tensor:
    """Draw a tensor from N(0, std) that requires a gradient."""
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * std
    return x.to(device, dtype).requires_grad_()


def _engine(
    function: Callable[..., Tensor], like: Tensor, shape: tuple[int, ...], taps: int
) -> tuple[dict[str, Callable[..., Tensor]], dict[str, str]]:
    """Candidates of a function, one per ``impl`` with 'tiled' first, and the unavailable ones."""
    found = {NAMES.get(i, i): functools.partial(function, impl=i) for i in IMPLS}
    gib = 2 * math.prod(shape) * taps * WIDTH * like.element_size() / 2**30
    if gib <= LARGEST_GATHER:
        return found, {}
    del found['gather']
    return found, {'gather': f'left out: more than {LARGEST_GATHER} GiB of gathered keys'}


def _title(operator: str, shape: tuple[int, ...]) -> str:
    n, heads, height, width = shape
    return f'{operator}, {n}x{heads}x{height}x{width}'


# ---- moving windows


def moving(
    make: Callable[..., Tensor], shape: tuple[int, ...], window: int, dilation: int = 1
) -> Case:
    """Windows that move inwards at the border, with a relative bias."""
    heads = shape[1]
    inputs = {name: make(*shape, WIDTH) for name in 'qkv'}
    inputs['bias'] = make(heads, 2 * window - 1, 2 * window - 1, std=0.1)

    def engine(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, impl: str) -> Tensor:
        return local_attention(q, k, v, window, dilation=dilation, bias=bias, impl=impl)

    candidates, unavailable = _engine(engine, inputs['q'], shape, window**2)
    if dilation == 1:
        candidates['unfold'] = functools.partial(_unfold, window=window)
    try:
        candidates['NATTEN'] = peers.natten(window, dilation, biased=True)
    except peers.Missing as reason:
        unavailable['NATTEN'] = str(reason)
    operator = f'window {window}' + f' dilation {dilation}' * (dilation > 1)
    return Case(_title(operator, shape), inputs, candidates, unavailable)


def _unfold(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, window: int) -> Tensor:
    """Attention with ``F.unfold`` of all windows inside the map, edge windows used repeatedly."""
    n, heads, height, width, _ = q.shape
    taps = torch.arange(window, device=q.device)
    starts, offsets = [], []
    for length in (height, width):
        i = torch.arange(length, device=q.device)
        start = (i - window // 2).clamp(0, length - window)
        starts.append(start)
        offsets.append((start - i)[:, None] + taps + window - 1)

    def windows(x: Tensor) -> Tensor:
        x = x.permute(0, 1, 4, 2, 3).reshape(n, -1, height, width)
        grid = (height - window + 1, width - window + 1)
        x = F.unfold(x, window).view(n, heads, -1, window**2, *grid)
        return x[..., starts[0][:, None], starts[1]]

    logits = torch.einsum('nhyxd,nhdtyx->nhyxt', q, windows(k)) * q.shape[-1] ** -0.5
    rows, columns = offsets
    logits = logits + bias[:, rows[:, None, :, None], columns[None, :, None, :]].flatten(-2)
    return torch.einsum('nhyxt,nhdtyx->nhyxd', logits.softmax(-1), windows(v))


# ---- modules


def _maps(x: Tensor, heads: int) -> Tensor:
    """(N, heads * d, H, W) to (N, heads, H, W, d), a view."""
    return x.unflatten(1, (heads, -1)).permute(0, 1, 3, 4, 2)


def _image(x: Tensor) -> Tensor:
    return x.permute(0, 1, 4, 2, 3).flatten(1, 2)


def _timm(file: str, name: str, unavailable: dict[str, str]) -> type[nn.Module] | None:
    """A class of timm, or None with the reason in ``unavailable`` if it cannot be imported."""
    try:
        return getattr(importlib.import_module(f'timm.layers.{file}'), name)
    except (ImportError, AttributeError) as error:
        unavailable[f'timm {name}'] = f'timm cannot be imported: {error}'
        return None


def _weights(
    make: Callable[..., Tensor], projections: dict[str, int], tables: tuple[int, int], width: int
) -> dict[str, Tensor]:
    inputs = {n: make(out, width, 1, 1, std=width**-0.5) for n, out in projections.items()}
    inputs['height_rel'] = make(tables[0], WIDTH, std=WIDTH**-0.5)
    inputs['width_rel'] = make(tables[1], WIDTH, std=WIDTH**-0.5)
    return inputs


def _halo(make: Callable[..., Tensor], shape: tuple[int, ...]) -> Case:
    n, heads, height, width = shape
    channels, length = heads * WIDTH, 2 * (BLOCK + 2 * HALO) - 1
    inputs = {'x': make(n, channels, height, width)}
    inputs |= _weights(make, dict(q=channels, kv=2 * channels), (length, length), channels)

    def engine(
        x: Tensor, q: Tensor, kv: Tensor, height_rel: Tensor, width_rel: Tensor, impl: str
    ) -> Tensor:
        k, v = _maps(F.conv2d(x, kv), heads).chunk(2, -1)
        tables = dict(rel_h=height_rel[None], rel_w=width_rel[None])
        queries = _maps(F.conv2d(x, q), heads)
        return _image(block_attention(queries, k, v, BLOCK, HALO, **tables, impl=impl))

    taps = (BLOCK + 2 * HALO) ** 2
    candidates, unavailable = _engine(engine, inputs['x'], shape, taps)
    cls = _timm('halo_attn', 'HaloAttn', unavailable)
    if cls:
        module = cls(channels, num_heads=heads, block_size=BLOCK, halo_size=HALO)

        def timm(x: Tensor, q: Tensor, kv: Tensor, height_rel: Tensor, width_rel: Tensor) -> Tensor:
            weights = {
                'q.weight': q,
                'kv.weight': kv,
                'pos_embed.height_rel': height_rel,
                'pos_embed.width_rel': width_rel,
            }
            # it needs whole blocks; without biases, padding gives keys and values of zero
            x = F.pad(x, (0, -width % BLOCK, 0, -height % BLOCK))
            return functional_call(module, weights, (x,))[..., :height, :width]

        candidates['timm HaloAttn'] = timm
    return Case(_title(f'block {BLOCK} halo {HALO}', shape), inputs, candidates, unavailable)


def _bottleneck(make: Callable[..., Tensor], shape: tuple[int, ...]) -> Case:
    n, heads, height, width = shape
    channels = heads * WIDTH
    inputs = {'x': make(n, channels, height, width)}
    tables = (2 * height - 1, 2 * width - 1)
    inputs |= _weights(make, dict(qkv=3 * channels), tables, channels)

    def engine(x: Tensor, qkv: Tensor, height_rel: Tensor, width_rel: Tensor, impl: str) -> Tensor:
        q, k, v = (_maps(part, heads) for part in F.conv2d(x, qkv).chunk(3, 1))
        tables = dict(rel_h=height_rel[None], rel_w=width_rel[None])
        return _image(global_attention(q, k, v, **tables, impl=impl))

    candidates, unavailable = _engine(engine, inputs['x'], shape, height * width)
    cls = _timm('bottleneck_attn', 'BottleneckAttn', unavailable)
    if cls:
        module = cls(channels, feat_size=(height, width), num_heads=heads)

        def timm(x: Tensor, qkv: Tensor, height_rel: Tensor, width_rel: Tensor) -> Tensor:
            weights = {
                'qkv.weight': qkv,
                'pos_embed.height_rel': height_rel,
                'pos_embed.width_rel': width_rel,
            }
            return functional_call(module, weights, (x,))

        candidates['timm BottleneckAttn'] = timm
    return Case(_title('whole map', shape), inputs, candidates, unavailable)
