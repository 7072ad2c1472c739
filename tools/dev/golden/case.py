"""Helpers to make stored cases: random weights, and the two files of a case."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

ROOT = Path(__file__).parents[3] / 'tests/golden/data'


def half(x: Tensor) -> Tensor:
    """Round to half precision, so that a file needs two bytes per number."""
    return x.half().double()


class Weights:
    """Tensors by their official names, drawn at the first use or taken from a file.

    Nothing is constantly 0 or 1. Weights have a standard deviation of ``gain`` over the square root
    of their fan-in, factors of norms are in 0.4..1.2, variances in 0.02..0.2: small enough that an
    epsilon of 1e-5 matters.

    Args:
        seed: Seed of the draws.
        given: Tensors of a file; then nothing is drawn, and all must be used (:meth:`done`).
    """

    def __init__(self, seed: int = 0, given: dict[str, Tensor] | None = None) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.given = given
        self.used: dict[str, Tensor] = {}

    def __call__(self, key: str, shape: Sequence[int], draw: Callable[..., Tensor]) -> Tensor:
        """Return the tensor of a name; ``draw`` makes it from its shape and a generator."""
        if key not in self.used:
            if self.given is None:
                self.used[key] = half(draw(tuple(shape), self.generator))
            else:
                self.used[key] = self.given[key].double()
        if tuple(self.used[key].shape) != tuple(shape):
            raise ValueError(f'{key}: {tuple(shape)} wanted, {tuple(self.used[key].shape)} found')
        return self.used[key]

    def normal(self, key: str, *shape: int, std: float = 1.0) -> Tensor:
        """N(0, std)."""
        return self(key, shape, lambda s, g: std * torch.randn(s, generator=g))

    def uniform(self, key: str, *shape: int, low: float = 0.4, high: float = 1.2) -> Tensor:
        """Uniform in low..high."""
        return self(key, shape, lambda s, g: low + (high - low) * torch.rand(s, generator=g))

    def linear(
        self, x: Tensor, name: str, channels: int, *, bias: bool = True, gain: float = 1.0
    ) -> Tensor:
        """Linear layer on the last axis."""
        inputs = x.shape[-1]
        out = x @ self.normal(f'{name}.weight', channels, inputs, std=gain * inputs**-0.5).t()
        return out + self.normal(f'{name}.bias', channels, std=0.1) if bias else out

    def conv(
        self,
        x: Tensor,
        name: str,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        dilation: int = 1,
        *,
        bias: bool = True,
        gain: float = 1.0,
    ) -> Tensor:
        """Convolution of (N, C, H, W), by default padded to keep the size at stride 1."""
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        if padding is None:
            padding = tuple(dilation * (side // 2) for side in sides)
        shape = channels, x.shape[1] // groups, *sides
        weight = self.normal(f'{name}.weight', *shape, std=gain * math.prod(shape[1:]) ** -0.5)
        b = self.normal(f'{name}.bias', channels, std=0.1) if bias else None
        return F.conv2d(x, weight, b, stride, padding, dilation, groups)

    def layer_norm(
        self, x: Tensor, name: str, eps: float, leaf: str = 'weight', size: float = 1.0
    ) -> Tensor:
        """Layer norm of the last axis; ``size`` is that of its output."""
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).square().mean(-1, keepdim=True)
        x = (x - mean) / (variance + eps).sqrt()
        channels = x.shape[-1]
        factor = self.uniform(f'{name}.{leaf}', channels, low=0.4 * size, high=1.2 * size)
        return x * factor + self.normal(f'{name}.bias', channels, std=0.3 * size)

    def layer_norm_2d(self, x: Tensor, name: str, eps: float, size: float = 1.0) -> Tensor:
        """Layer norm of the channels of (N, C, H, W)."""
        return self.layer_norm(x.permute(0, 2, 3, 1), name, eps, size=size).permute(0, 3, 1, 2)

    def batch_norm(self, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        """Batch norm by its statistics, over axis 1."""
        channels = x.shape[1]
        shape = 1, channels, *[1] * (x.ndim - 2)
        mean = self.normal(f'{name}.running_mean', channels, std=0.1).view(shape)
        variance = self.uniform(f'{name}.running_var', channels, low=0.02, high=0.2).view(shape)
        factor = self.uniform(f'{name}.weight', channels, low=0.1, high=0.4).view(shape)
        bias = self.normal(f'{name}.bias', channels, std=0.2).view(shape)
        return (x - mean) / (variance + eps).sqrt() * factor + bias

    def done(self) -> None:
        """Raise KeyError if a file holds more than was used, counters and indices aside."""
        derived = 'num_batches_tracked', '_index', 'attn_mask', 'relative_id'
        left = [k for k in self.given or () if k not in self.used and not k.endswith(derived)]
        if left:
            raise KeyError(f'not used: {left[:4]}')


def randomise(module: nn.Module, seed: int, special: dict[str, float] | None = None) -> None:
    """Redraw all parameters and buffers of another package's module, rounded to half precision.

    Args:
        module: The module.
        seed: Seed.
        special: Parts of names of tensors and the standard deviation they are drawn with.
    """
    generator = torch.Generator().manual_seed(seed)
    state = module.state_dict()
    norms = {
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm)
        or 'norm' in type(part).__name__.lower()
    }
    for key, value in state.items():
        if not value.is_floating_point():
            continue
        owner, _, leaf = key.rpartition('.')
        std = next((std for part, std in (special or {}).items() if part in key), None)
        noise = torch.randn(value.shape, generator=generator)
        spread = torch.rand(value.shape, generator=generator)
        if std is not None:
            new = std * noise
        elif leaf == 'running_var':
            new = 0.02 + 0.18 * spread
        elif leaf == 'running_mean':
            new = 0.1 * noise
        elif owner in norms and leaf == 'weight':
            batch = f'{owner}.running_var' in state
            new = 0.1 + 0.3 * spread if batch else 0.4 + 0.8 * spread
        elif owner in norms and leaf == 'bias':
            new = 0.25 * noise
        elif value.ndim < 2:
            new = 0.1 * noise
        else:
            new = noise * math.prod(value.shape[1:]) ** -0.5
        value.copy_(half(new))


def draw_input(shape: Sequence[int], seed: int) -> Tensor:
    """Draw a random image."""
    return half(torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)))


def save(
    slug: str,
    name: str,
    run: Callable[[Tensor], Sequence[Tensor]],
    x: Tensor,
    weights: Callable[[], dict[str, Tensor]],
    module: str,
    config: dict[str, Any],
    reference: str,
    notes: str = '',
) -> None:
    """Compute a case in float64 and write it.

    Args:
        slug: Folder of the case.
        name: Name of the case.
        run: The reference.
        x: Input, rounded to half precision.
        weights: Called after ``run``; returns the weights in the official layout, and those that it
            lacks under our names with the prefix ``own/``.
        module: Our network, ``hybrid_mm.<class>``.
        config: Its arguments: sizes only, so that all else is a default of ours.
        reference: What computed the outputs.
        notes: Further notes for readers.
    """
    x = x.double().requires_grad_()
    outputs = [out.contiguous() for out in run(x)]
    generator = torch.Generator().manual_seed(99)
    dys = [half(torch.randn(out.shape, generator=generator)) for out in outputs]
    (grad,) = torch.autograd.grad(outputs, x, dys)
    tensors = {'input': x.detach().half(), 'grad/input': grad.float().contiguous()}
    for i, (out, dy) in enumerate(zip(outputs, dys, strict=True)):
        tensors[f'output/{i}'], tensors[f'cotangent/{i}'] = out.detach().float(), dy.half()
    for key, value in weights().items():
        value = value.detach()
        if value.is_floating_point():
            if value.numel() > 1 and (value == value.flatten()[0]).all():
                raise ValueError(f'{key} is constant')
            if not torch.equal(value.double(), half(value)):
                raise ValueError(f'{key} is not in half precision')
            value = value.half()
        key = key if key.startswith('own/') else f'weight/{key}'
        tensors[key] = value.clone().contiguous()
    folder = ROOT / slug
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / f'{name}.safetensors')
    case = dict(system=slug, case=name, module=module, config=config, reference=reference)
    case |= dict(notes=notes, input_shape=list(x.shape), torch=torch.__version__)
    case['output_shapes'] = [list(out.shape) for out in outputs]
    (folder / f'{name}.json').write_text(json.dumps(case, indent=1) + '\n')
    size = (folder / f'{name}.safetensors').stat().st_size
    spread = ' '.join(f'{out.std():.2g}' for out in outputs)
    print(f'{slug} {name}: {size // 1000} KB, std of the outputs {spread}', flush=True)
