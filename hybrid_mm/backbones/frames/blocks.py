"""Parts that networks of several families share: norms, convolutions, and the stage of blocks."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from hybrid_mm.errors import nearest
from hybrid_mm.ops.argument_types import check_keywords, check_type
from hybrid_mm.ops.arguments import not_negative

__all__ = ['BATCH_NORM', 'NormCfg', 'Stage', 'build_norm', 'conv2d_he', 'he_normal_', 'run_blocks']

_NORMS: dict[str, Callable[..., _BatchNorm]] = {'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm}

NormCfg = Mapping[str, Any]

# default of ``norm_cfg``: arguments of a function must not be changed
BATCH_NORM: NormCfg = MappingProxyType({'type': 'BN'})


def build_norm(cfg: NormCfg, channels: int) -> _BatchNorm:
    """Build a batch normalisation from an OpenMMLab ``norm_cfg``.

    Args:
        cfg: ``type`` ('BN' or 'SyncBN'), optionally ``requires_grad`` and arguments of the layer.
        channels: Number of channels.

    Raises:
        ValueError: Another type, or numbers out of range.
    """
    settings = dict(cfg)
    name, requires_grad = settings.pop('type', None), settings.pop('requires_grad', True)
    if name not in _NORMS:
        hint = nearest(name, _NORMS) if isinstance(name, str) else ''
        raise ValueError(f'norm_cfg type must be one of {sorted(_NORMS)}, got {name!r}{hint}')
    check_keywords('norm_cfg', 'norm_cfg', settings, nn.BatchNorm2d)
    check_type('norm_cfg', 'norm_cfg.requires_grad', requires_grad, bool)
    numbers = {key: value for key, value in settings.items() if key in ('eps', 'momentum')}
    not_negative('norm_cfg', **numbers)
    norm = _NORMS[name](channels, **settings)
    norm.requires_grad_(requires_grad)
    return norm


def he_normal_(conv: nn.Conv2d) -> None:
    """Draw the weight of a convolution from He's normal over the fan-out of a group.

    Args:
        conv: The convolution, changed in place.
    """
    fan_out = math.prod(conv.kernel_size) * conv.out_channels // conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))


def conv2d_he(
    in_channels: int,
    channels: int,
    kernel_size: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """Convolution without bias to ceil(H / stride) rows, with He's initial values.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        kernel_size: Odd size of the kernel.
        stride: Stride.
        dilation: Distance of the taps; the padding follows it.
        groups: Groups of channels.
    """
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(
        in_channels, channels, kernel_size, stride, padding, dilation, groups, bias=False
    )
    he_normal_(conv)
    return conv


class Stage(nn.Module):
    """Blocks in turn, with modules before and after them.

    Args:
        blocks: Modules that map a tensor to a tensor.
        with_cp: Recompute each block in the backward pass instead of keeping its activations.
        before: Modules before the blocks by name, usually 'embed' or 'downsample'.
        after: Modules after the blocks by name; the next stage gets what they return.
        norm: Norm of the returned map only, which the network applies: the next stage gets the
            map without it.
    """

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        with_cp: bool = False,
        before: Mapping[str, nn.Module] = MappingProxyType({}),
        after: Mapping[str, nn.Module] = MappingProxyType({}),
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.before, self.after = tuple(before), tuple(after)
        for name, module in before.items():
            self.add_module(name, module)
        self.blocks = nn.ModuleList(blocks)
        for name, module in after.items():
            self.add_module(name, module)
        if norm is not None:
            self.norm = norm
        self.with_cp = with_cp

    def enter(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to the input of the blocks."""
        for name in self.before:
            x = getattr(self, name)(x)
        return x

    def forward(self, x: Any) -> Any:
        """Map the previous stage's output to this stage's."""
        x = run_blocks(self.blocks, self.enter(x), self.with_cp)
        for name in self.after:
            x = getattr(self, name)(x)
        return x


@contextlib.contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms update copies of their running statistics, not these a second time."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    buffers = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        for name, buffer in norm._buffers.items():
            norm._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for norm, kept in zip(norms, buffers, strict=True):
            norm._buffers.update(kept)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts of the forward pass of a block, and of the pass that recomputes it."""
    return contextlib.nullcontext(), _frozen_statistics(block)


def run_blocks(blocks: Iterable[nn.Module], x: Any, with_cp: bool, *arguments: Any) -> Any:
    """Run blocks in turn, each under gradient checkpointing if asked for.

    Gradients and running statistics equal those of a run without checkpointing.

    Args:
        blocks: Modules that map a tensor to a tensor.
        x: Input of the first block.
        with_cp: Recompute each block in the backward pass.
        *arguments: What every block gets besides the tensor.
    """
    for block in blocks:
        if with_cp and torch.is_grad_enabled():
            contexts = functools.partial(_contexts, block)
            x = checkpoint(block, x, *arguments, use_reentrant=False, context_fn=contexts)
        else:
            x = block(x, *arguments)
    return x
