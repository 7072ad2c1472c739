"""A GPU that is not there: tensors of shapes alone, and what torch chooses for them on CUDA."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from hybrid_mm.ops import autotune

HALF = (torch.float16, torch.bfloat16)

_aten = torch.ops.aten
_attention = F.scaled_dot_product_attention


@contextmanager
def fake_cuda() -> Iterator[FakeTensorMode]:
    """Let torch believe in a GPU within a block; tensors that are made there have no numbers.

    Autocast works, attention takes the kernels of CUDA, and operators that would measure several
    algorithms take the first of them.
    """
    patches = (
        mock.patch.object(torch.cuda.amp.common, 'amp_definitely_not_available', lambda: False),
        mock.patch.object(torch.cuda, 'is_bf16_supported', lambda *args, **kwargs: True),
        mock.patch.object(F, 'scaled_dot_product_attention', _cuda_attention),
        mock.patch.object(autotune, '_device', lambda device: 'fake'),
        mock.patch.object(autotune, '_measure', lambda candidates, *args: next(iter(candidates))),
        # what is recomputed is kept for a pass of autograd's engine, which has a number
        mock.patch.object(torch._C, '_current_graph_task_id', lambda: 1),
    )
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mock.patch.dict(autotune._chosen, clear=True):
        for patch in patches:
            patch.start()
        try:
            with mode:
                yield mode
        finally:
            for patch in patches:
                patch.stop()


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
    if torch.is_autocast_enabled('cuda'):
        dtype = torch.get_autocast_dtype('cuda')
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
