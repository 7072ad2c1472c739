"""A GPU that is not there: tensors of shapes alone, and what torch chooses for them on CUDA.

with fake_cuda(), Bodies():
    x = torch.empty(2, 3, device='cuda', requires_grad=True)
    backward(function(x))  # that of the engine beside this file
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hybrid_mm.compat.torch_api import MARKS_EXPORTS, get_autocast_dtype, is_autocast_enabled
from hybrid_mm.ops import autotune
from hybrid_mm.ops.custom_op import BODIES

NAMESPACE = 'hybrid_mm'
HALF = (torch.float16, torch.bfloat16)

_aten = torch.ops.aten
_attention = F.scaled_dot_product_attention


@contextlib.contextmanager
def fake_cuda() -> Iterator[FakeTensorMode]:
    """Let torch believe in a GPU within a block; tensors that are made there have no numbers.

    Autocast works, attention takes the kernels of CUDA, and operators that would measure several
    algorithms take the first of them.

    Raises:
        RuntimeError: A torch that needs a GPU for them, or ends the process in a backward pass.
    """
    if not MARKS_EXPORTS:  # of the same releases
        raise RuntimeError(
            f'tensors on a GPU that is not there need torch >= 2.6, this is {torch.__version__}'
        )
    changed = (
        (torch.cuda.amp.common, 'amp_definitely_not_available', lambda: False),
        (torch.cuda, 'is_bf16_supported', lambda *_, **__: True),
        # what is recomputed is kept for a pass of autograd's engine, which has a number
        (torch._C, '_current_graph_task_id', lambda: 1),
        (F, 'scaled_dot_product_attention', _cuda_attention),
        (autotune, '_device', lambda device: 'fake'),
        (autotune, '_measure', lambda candidates, *_: next(iter(candidates))),
    )
    with contextlib.ExitStack() as stack:
        for owner, name, value in changed:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(mock.patch.dict(autotune._chosen, clear=True))
        yield stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))


def on_fake_cuda(module: nn.Module) -> nn.Module:
    """Move the parameters and buffers of a module to the GPU, within :func:`fake_cuda`.

    What is neither of them stays on the host, as with ``module.cuda()``.
    """
    moved: dict[Tensor, Tensor] = {}

    def move(x: Tensor) -> Tensor:
        if x not in moved:
            y = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device='cuda')
            moved[x] = nn.Parameter(y, x.requires_grad) if isinstance(x, nn.Parameter) else y
        return moved[x]

    for part in module.modules():
        for named in (part._parameters, part._buffers):
            named.update({name: move(x) for name, x in named.items() if x is not None})
    return module


class Bodies(TorchDispatchMode):
    """Run the bodies of our operators, and see every other call below autograd.

    torch would ask for the shapes of their results only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0  # operators of ours around a call

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what a call does, or take it apart."""
        kwargs = kwargs or {}
        if func.namespace == NAMESPACE:
            return self.body(func, args, kwargs)
        if self.depth and _composite(func):
            with self:  # autograd, which takes such calls apart, is off inside of an operator
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        return self.call(func, args, kwargs)

    def body(self, func: Any, args: Sequence, kwargs: dict[str, Any]) -> Any:
        """Run the body of one of our operators."""
        self.depth += 1
        try:
            with self:
                return BODIES[func._schema.name](*args, **kwargs)
        finally:
            self.depth -= 1

    def call(self, func: Any, args: Sequence, kwargs: dict[str, Any]) -> Any:
        """Make one call of torch; counting classes override it."""
        return func(*args, **kwargs)


@functools.cache
def _composite(func: Any) -> bool:
    """Whether a call is made of others."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return func.namespace == 'aten' and has(func.name(), 'CompositeImplicitAutograd')


def _cuda_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``scaled_dot_product_attention`` by the kernels that CUDA has.

    Flash attention in half precision without a mask, else the memory-efficient kernel.
    """
    if not query.is_cuda:
        return _attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
    if is_autocast_enabled('cuda'):
        dtype = get_autocast_dtype('cuda')
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    width = query.shape[-1]
    flash = attn_mask is None and query.dtype in HALF and width == value.shape[-1] <= 256
    if flash:
        scale = width**-0.5 if scale is None else scale
        padded = (F.pad(x, (0, -width % 8)) if width % 8 else x for x in (query, key, value))
        out = _aten._scaled_dot_product_flash_attention(
            *padded, dropout_p, is_causal, False, scale=scale
        )[0]
        return out[..., :width]
    if attn_mask is not None:
        attn_mask = _aligned_mask(attn_mask, query, key)
    return _aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
    )[0]


def _aligned_mask(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """The mask as the memory-efficient kernel wants it: numbers, in rows of a multiple of 8."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -math.inf)
    length = mask.shape[-1]
    if length % 8:
        mask = F.pad(mask, (0, -length % 8))[..., :length]
    return mask.expand(*query.shape[:2], query.shape[2], key.shape[2])
