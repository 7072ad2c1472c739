"""Adaptive gradient clipping: gradients limited by the norm of the weights that they change."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor

from hybrid_mm.engine.optim_wrapper import AutocastOptimWrapper
from hybrid_mm.errors import UserError
from hybrid_mm.registry import OPTIM_WRAPPERS

_SMALLEST = 1e-6  # norm of a gradient that is divided by


@torch.no_grad()
def clip_adaptively(
    parameters: Iterable[Tensor], clip_factor: float = 0.01, eps: float = 1e-3
) -> None:
    """Scale down, in place, the gradient of each unit that is large beside the unit's weights.

    Source: "High-Performance Large-Scale Image Recognition Without Normalization" (arXiv
    2102.06171), equation 3. A unit is a row of a matrix or the kernel of an output channel; a
    vector is one unit. With weights W and gradient G of a unit, G becomes ``clip_factor *
    max(|W|, eps) / |G|`` times itself where that is below 1.

    Units of one length are computed together, whatever parameters they belong to, with a copy of
    their weights and gradients: the number of launches does not grow with the number of layers.

    Args:
        parameters: With gradients; those without are left out.
        clip_factor: The largest ratio of the two norms.
        eps: Norm of the weights from which units that begin at zero are clipped.
    """
    of_length: dict[tuple, list[tuple[Tensor, int]]] = defaultdict(list)
    for p in parameters:
        if p.grad is not None and p.numel():
            units = len(p) if p.dim() > 1 else 1
            of_length[p.numel() // units, p.device, p.dtype].append((p, units))
    for members in of_length.values():
        weights = torch.cat([p.reshape(units, -1) for p, units in members])
        limit = torch.linalg.vector_norm(weights, dim=1, keepdim=True)
        limit.clamp_(min=eps).mul_(clip_factor)
        del weights
        grads = torch.cat([p.grad.reshape(units, -1) for p, units in members])
        norm = torch.linalg.vector_norm(grads, dim=1, keepdim=True).clamp_(min=_SMALLEST)
        grads.mul_(limit.div_(norm).clamp_(max=1))
        parts = grads.split([units for _, units in members])
        torch._foreach_copy_(
            [p.grad for p, _ in members],
            [part.view(p.shape) for part, (p, _) in zip(parts, members, strict=True)],
        )


class _AdaptiveClipping(OptimWrapper):
    """Optimizer wrapper whose ``clip_grad`` has the arguments of :func:`clip_adaptively`."""

    def __init__(self, clip_grad: dict[str, float] | None = None, **kwargs: Any) -> None:
        settings = dict(clip_grad or {})
        unknown = settings.keys() - {'clip_factor', 'eps'}
        if unknown or not all(value > 0 for value in settings.values()):
            raise UserError(
                f'{type(self).__name__} needs clip_grad=dict(clip_factor=0.01, eps=1e-3) with '
                f'positive numbers, got {clip_grad}'
            )
        super().__init__(**kwargs)
        self.clip_grad_kwargs = dict(clip_factor=0.01, eps=1e-3) | settings
        self.clip_func = clip_adaptively


@OPTIM_WRAPPERS.register_module()
class AGCOptimWrapper(_AdaptiveClipping):
    """MMEngine's ``OptimWrapper`` with adaptive gradient clipping of all parameters.

    The paper leaves out the last linear layer; LeViT, which trains with this, does not.

    Args:
        clip_grad: ``clip_factor`` (0.01) and ``eps`` (1e-3), see :func:`clip_adaptively`.
        **kwargs: See ``OptimWrapper``.

    Raises:
        UserError: Other keys, or a number that is not positive.

    Example:
        >>> optim_wrapper = dict(
        ...     type='hybrid_mm.AGCOptimWrapper',
        ...     optimizer=dict(type='AdamW', lr=1e-3),
        ...     clip_grad=dict(clip_factor=0.01))
    """


@OPTIM_WRAPPERS.register_module()
class AGCAmpOptimWrapper(_AdaptiveClipping, AmpOptimWrapper):
    """:class:`AGCOptimWrapper` in float16 on a GPU: gradients are clipped after the unscaling.

    Args:
        clip_grad: See :class:`AGCOptimWrapper`.
        **kwargs: See ``AmpOptimWrapper``.
    """


@OPTIM_WRAPPERS.register_module()
class AGCAutocastOptimWrapper(_AdaptiveClipping, AutocastOptimWrapper):
    """:class:`AGCOptimWrapper` in bfloat16, on CPUs too.

    Args:
        clip_grad: See :class:`AGCOptimWrapper`.
        **kwargs: See ``AutocastOptimWrapper``.
    """
