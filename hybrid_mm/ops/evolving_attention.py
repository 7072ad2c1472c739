"""Evolving attention: the logits of a layer are mixed with those of the one before and convolved.

Source: "Evolving Attention with Residual Convolutions" (arXiv 2102.12895), section 3, and its
published code, whose names alpha and beta are used here (the paper swaps them).

The (H W)^2 logits of every head have to exist, for the next layer convolves them. They are kept
once per layer: the backward pass makes weights, mixed logits and their gradients again, a few rows
of queries at a time. In float32 a layer keeps 4 * heads * (H W)^2 bytes per image for the backward
pass, and while it runs two more maps of that size exist (the gradients of the logits of the layer
and of the one before). With 8 heads:

====== ============ ================ =============
tokens e.g.         per layer, image its 10 layers
====== ============ ================ =============
196    14 x 14      1.2 MB           12 MB
1024   32 x 32      34 MB            336 MB
1050   25 x 42      35 MB            353 MB
2048   -            134 MB           1.3 GB
4200   50 x 84      564 MB           5.6 GB
====== ============ ================ =============

(10 layers are a chain of the ResNet-50, 27 of the ResNet-101; with gradient checkpointing they stay
the same, the maps being what the layers hand on.) Without gradients two layers exist at a time.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.dispatch import chosen_impl
from hybrid_mm.ops.export import exporting, require_fixed_size
from hybrid_mm.ops.positions import decomposed_logits, decomposed_tables, relative_to_absolute
from hybrid_mm.ops.precision import no_autocast

_ROWS = 32  # queries at a time at least, for each chunk computes a row above and below again


def evolving_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor | None = None,
    rel_w: Tensor | None = None,
    previous: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 0.5,
    impl: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """Attention of every pixel to all, with logits that grow out of those of the layer before.

    L = q.k + q.rel_h[row offset] + q.rel_w[column offset]; with ``previous`` logits P it becomes
    M = (1 - beta) L + beta P, and L = alpha ReLU(conv(M) + bias) + (1 - alpha) M, a 3x3 convolution
    over the map of queries and keys whose channels are the heads. Then out = softmax(L) v.

    Multiplications: (H W)^2 (d + d_v + 9 heads) per head. Logits are float32 (or float64) under
    autocast too: behind the ReLU they have no upper bound.

    Args:
        q: Queries, scaled already, (N, heads, H, W, d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        rel_h: Row table for all heads, (2 H - 1, d), by key - query + H - 1; None leaves both out.
        rel_w: Column table, (2 W - 1, d).
        previous: Logits of the layer before, (N, heads, H W, H W).
        weight: Kernel of the convolution, (heads, heads, 3, 3); with ``previous`` only.
        bias: Its bias, (heads,).
        alpha: Weight of the convolution.
        beta: Weight of the logits of the layer before.
        impl: 'tiled', which keeps the logits and nothing else of their size, or 'reference', the
            formulas as they stand, which keep three such maps in a chain.

    Returns:
        The result (N, heads, H, W, d_v), and the logits L (N, heads, H W, H W) for the next layer.

    Raises:
        ValueError: Logits or tables of another size, one of ``previous``, ``weight`` and ``bias``
            without the others, an unknown impl.
    """
    impl = chosen_impl(impl, 'evolving_attention')
    n, heads, height, width, _ = q.shape
    require_fixed_size((height, width), 'evolving attention')
    tokens = height * width
    given = [x is not None for x in (previous, weight, bias)]
    if any(given) != all(given):
        raise ValueError('previous logits, weight and bias go together: give all of them or none')
    if previous is not None and previous.shape != (n, heads, tokens, tokens):
        raise ValueError(
            f'previous logits of shape {(n, heads, tokens, tokens)} expected for a {height} x '
            f'{width} map, got {tuple(previous.shape)}: the layers of a chain see maps of one size'
        )
    dtype = torch.promote_types(q.dtype, torch.float32)
    out_dtype = v.dtype
    q, k, v = (x.to(dtype) for x in (q, k, v))
    if previous is not None:
        previous, weight, bias = (x.to(dtype) for x in (previous, weight, bias))
    with no_autocast(q):
        if impl == 'reference' or exporting():
            out, logits = _plain(q, k, v, rel_h, rel_w, previous, weight, bias, alpha, beta)
        else:
            row = column = None
            if rel_h is not None:
                row, column = _relative(q, rel_h.to(dtype), rel_w.to(dtype))
            q, k, v = (x.flatten(2, 3).contiguous() for x in (q, k, v))
            out, logits = _evolve(
                q, k, v, row, column, previous, weight, bias, [height, width], alpha, beta
            )
    return out.unflatten(2, (height, width)).to(out_dtype), logits


def _relative(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """Terms by key row and by key column, (N, heads, H W, H) and (N, heads, H W, W)."""
    height, width = q.shape[2:4]
    # those tables are by query - key
    tables = decomposed_tables(rel_h.flip(0), height, height, resize=False)
    row, column = decomposed_logits(
        q, tables, decomposed_tables(rel_w.flip(0), width, width, resize=False)
    )
    return row.flatten(2, 3).contiguous(), column.flatten(2, 3).contiguous()


def _plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    previous: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """The formulas one after the other."""
    logits = torch.einsum('nhyxd,nhvud->nhyxvu', q, k)
    if rel_h is not None:
        columns = relative_to_absolute(torch.einsum('nhyxd,ud->nhyxu', q, rel_w.to(q.dtype)))
        rows = torch.einsum('nhyxd,vd->nhxyv', q, rel_h.to(q.dtype))
        rows = relative_to_absolute(rows).transpose(2, 3)
        logits = logits + rows[..., None] + columns[..., None, :]
    logits = logits.flatten(4, 5).flatten(2, 3)
    if previous is not None:
        mixed = (1 - beta) * logits + beta * previous
        convolved = F.relu(F.conv2d(mixed, weight, bias, padding=1))
        logits = alpha * convolved + (1 - alpha) * mixed
    return logits.softmax(-1) @ v.flatten(2, 3), logits


# ---- the engine: tokens (N, heads, T, d), logits (N, heads, T, T)


def _chunks(logits: Tensor) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Images and queries of each piece of the work.

    Yields:
        The images; the queries; the queries with the row above and below that a 3x3 convolution
        reads; and where the queries lie within the latter.
    """
    n, heads, queries, keys = logits.shape
    images = budget.fitting(n, heads * queries * keys, logits.device)
    rows = min(queries, max(_ROWS, budget.fitting(queries, heads * keys, logits.device)))
    for image in budget.chunks(n, images):
        for own in budget.chunks(queries, rows):
            above, below = max(own.start - 1, 0), min(own.stop + 1, queries)
            wide, inner = slice(above, below), slice(own.start - above, own.stop - above)
            yield image, own, wide, inner


def _logits(q: Tensor, k: Tensor, row: Tensor | None, column: Tensor | None, rows: slice) -> Tensor:
    """Logits of some queries before they evolve, (N, heads, rows, T)."""
    logits = torch.matmul(q[:, :, rows], k.transpose(2, 3))
    if row is not None:
        grid = logits.unflatten(3, (row.shape[3], column.shape[3]))
        grid += row[:, :, rows, :, None]
        grid += column[:, :, rows, None]
    return logits


@custom_op('hybrid_mm::evolving_attention')
def _evolve(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor | None,
    column: Tensor | None,
    previous: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    size: list[int],
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Result and logits; ``size`` is height and width of the map."""
    tokens = q.shape[2]
    out, logits = torch.empty_like(v), q.new_empty(*q.shape[:2], tokens, tokens)
    with torch.autocast(q.device.type, enabled=False):
        for image, own, wide, inner in _chunks(logits):
            terms = [None if x is None else x[image] for x in (row, column)]
            part = logits[image][:, :, own]
            if previous is None:
                part.copy_(_logits(q[image], k[image], *terms, own))
            else:
                mixed = _logits(q[image], k[image], *terms, wide)
                mixed.lerp_(previous[image][:, :, wide], beta)
                convolved = F.conv2d(mixed, weight, bias, padding=1)[:, :, inner]
                if alpha == 1:
                    torch.clamp(convolved, min=0, out=part)
                else:
                    torch.lerp(mixed[:, :, inner], convolved.relu_(), alpha, out=part)
            out[image][:, :, own] = part.softmax(-1) @ v[image]
    return out, logits


@_evolve.register_fake
def _(q, k, v, row, column, previous, weight, bias, size, alpha, beta):
    return torch.empty_like(v), q.new_empty(*q.shape[:2], q.shape[2], q.shape[2])


@custom_op('hybrid_mm::evolving_attention_backward')
def _evolve_backward(
    grad: Tensor | None,
    grad_logits: Tensor | None,
    logits: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor | None,
    column: Tensor | None,
    previous: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    size: list[int],
    alpha: float,
    beta: float,
) -> list[Tensor]:
    given = (q, k, v, row, column, previous, weight, bias)
    found = [None if x is None else torch.zeros_like(x) for x in given[:5]]
    found += [None if x is None else torch.empty_like(x) for x in given[5:]]
    grad_q, grad_k, grad_v, grad_row, grad_column, grad_previous, grad_weight, grad_bias = found
    if previous is not None:
        grad_weight.zero_()
        grad_bias.zero_()
        flipped = weight.transpose(0, 1).flip(2, 3).contiguous()
    with torch.autocast(q.device.type, enabled=False):
        for image, own, wide, inner in _chunks(logits):
            terms = [None if x is None else x[image] for x in (row, column)]
            if previous is None:
                wide, inner = own, slice(None)
            part = logits[image][:, :, wide]
            if grad is None:
                up = grad_logits[image][:, :, wide].clone()
            else:
                weights = part.softmax(-1)
                dy = grad[image][:, :, wide]
                grad_v[image] += weights[:, :, inner].transpose(2, 3) @ dy[:, :, inner]
                up = dy @ v[image].transpose(2, 3)
                up = torch._softmax_backward_data(up, weights, -1, up.dtype)
                del weights
                if grad_logits is not None:
                    up += grad_logits[image][:, :, wide]
            if previous is not None:
                mixed = _logits(q[image], k[image], *terms, wide)
                mixed.lerp_(previous[image][:, :, wide], beta)
                if alpha == 1:
                    passed = torch.ops.aten.threshold_backward(up, part, 0)
                else:
                    # the outer rows would lack a neighbour
                    a, b = max(wide.start - 1, 0), min(wide.stop + 1, q.shape[2])
                    wider = _logits(q[image], k[image], *terms, slice(a, b))
                    wider.lerp_(previous[image][:, :, a:b], beta)
                    wider = F.conv2d(wider, weight, bias, padding=1)[:, :, wide.start - a :]
                    wider = wider[:, :, : up.shape[2]]
                    passed = torch.ops.aten.threshold_backward(up * alpha, wider, 0)
                    del wider
                down = F.conv2d(passed, flipped, padding=1)[:, :, inner]
                if alpha != 1:
                    down.add_(up[:, :, inner], alpha=1 - alpha)
                passed[:, :, : inner.start] = 0
                passed[:, :, inner.stop :] = 0
                grad_bias += passed.sum((0, 2, 3))
                grad_weight += _kernel_gradient(mixed, passed)
                torch.mul(down, beta, out=grad_previous[image][:, :, own])
                up = down.mul_(1 - beta)
                del mixed, passed
            if row is not None:
                grid = up.unflatten(3, size)
                grad_row[image][:, :, own] = grid.sum(4)
                grad_column[image][:, :, own] = grid.sum(3)
            grad_q[image][:, :, own] = up @ k[image]
            grad_k[image] += up.transpose(2, 3) @ q[image][:, :, own]
    return [x for x in found if x is not None]


def _kernel_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """Gradient of the kernel of a 3x3 convolution."""
    return torch.ops.aten.convolution_backward(
        dy,
        x,
        x.new_empty(dy.shape[1], x.shape[1], 3, 3),
        None,
        [1, 1],
        [1, 1],
        [1, 1],
        False,
        [0, 0],
        1,
        [False, True, False],
    )[1]


@_evolve_backward.register_fake
def _(grad, grad_logits, logits, *inputs):
    return [torch.empty_like(x) for x in inputs[:8] if x is not None]


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.size, ctx.alpha, ctx.beta = inputs
    ctx.save_for_backward(output[1], *tensors)
    # the last layer's logits have no gradient, and zeros would be a map more
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad, grad_logits):
    logits, *tensors = ctx.saved_tensors
    if grad is None and grad_logits is None:
        return (None,) * (len(tensors) + 3)
    if grad is not None:
        grad = grad.contiguous()
    grads = iter(
        _evolve_backward(grad, grad_logits, logits, *tensors, ctx.size, ctx.alpha, ctx.beta)
    )
    return *(None if x is None else next(grads) for x in tensors), None, None, None


_evolve.register_autograd(_differentiate, setup_context=_setup_context)
