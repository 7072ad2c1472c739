"""Forward and backward pass as a CUDA graph."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.benchmarks.gpu.compare import cotangents, gradients, listed, names_of
from hybrid_mm.benchmarks.gpu.task import Skipped


def captured(
    function: Callable[..., Any],
    inputs: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor] | None = None,
) -> tuple[list[str], list[Tensor]]:
    """What :func:`~hybrid_mm.benchmarks.gpu.compare.differentiated` returns, replayed.

    The graph is captured with other numbers than it is replayed with: what a call computes on the
    host once would show.

    Raises:
        Skipped: Not on a GPU.
    """
    if not all(x.is_cuda for x in inputs.values()):
        raise Skipped('a CUDA graph needs a GPU')
    leaves = {name: (x / 2).requires_grad_() for name, x in inputs.items()}
    wanted = leaves | dict(parameters or {})

    def step() -> tuple[list[Tensor], list[Tensor]]:
        results = listed(function(**leaves))
        return results, gradients(results, list(wanted.values()), given)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles kernels, and copies tables to the device
        given = cotangents(listed(function(**leaves)))
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results, grads = step()
    with torch.no_grad():
        for name, leaf in leaves.items():
            leaf.copy_(inputs[name])
    graph.replay()
    torch.cuda.synchronize()
    return names_of(results, wanted), [x.detach().clone() for x in (*results, *grads)]
