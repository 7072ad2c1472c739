"""Fake CUDA tensors: what a GPU would be asked to do, found on a machine without one.

Tensors have shapes, types and strides and no numbers; torch works out the rest. Two things that
torch does not do by itself are here: the bodies of this package's operators run (torch would ask
for the shapes of their results only), and the backward pass runs node by node (autograd's engine
does not start for tensors of a GPU that is missing).

    with fake_cuda(), Bodies():
        x = torch.empty(2, 3, device='cuda', requires_grad=True)
        backward(function(x))
"""

import contextlib
import functools
import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._library.custom_ops import OPDEFS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hybrid_mm.ops import autotune

NAMESPACE = 'hybrid_mm'


@contextlib.contextmanager
def fake_cuda() -> Iterator[FakeTensorMode]:
    """Make fake tensors; those of ``device='cuda'`` need no GPU.

    Operators that would measure their algorithms take the first of them.
    """
    with contextlib.ExitStack() as stack:
        # autocast, checkpoints and types as if a GPU were there
        for name, value in (
            ('cuda.amp.common.amp_definitely_not_available', lambda: False),
            ('cuda.is_bf16_supported', lambda *_, **__: True),
            ('_C._current_graph_task_id', lambda: 1),
        ):
            stack.enter_context(mock.patch(f'torch.{name}', value))
        stack.enter_context(mock.patch.object(autotune, 'choose', _first))
        mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield mode


def _first(operator: str, key: tuple, candidates: Mapping[str, Any], *_: Any) -> str:
    return next(iter(candidates))


def on_fake_cuda(module: nn.Module) -> nn.Module:
    """Give a module fake parameters and buffers; what else it holds stays on the host."""
    for part in module.modules():
        for name, old in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(_alike(old), requires_grad=old.requires_grad))
        for name, old in part.named_buffers(recurse=False):
            setattr(part, name, _alike(old))
    return module


def _alike(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device='cuda')


class Bodies(TorchDispatchMode):
    """Run the bodies of this package's operators, and see every other call below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0  # operators of ours around a call

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what a call does, or take it apart."""
        kwargs = kwargs or {}
        if func.namespace == NAMESPACE:
            self.depth += 1
            try:
                with self:
                    return OPDEFS[func._schema.name]._init_fn(*args, **kwargs)
            finally:
                self.depth -= 1
        if self.depth and _composite(func):
            with self:  # autograd, which takes such calls apart, is off inside of an operator
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        return self.call(func, args, kwargs)

    def call(self, func: Any, args: Sequence, kwargs: dict[str, Any]) -> Any:
        """Make one call of torch; counting classes override it."""
        return func(*args, **kwargs)


@functools.cache
def _composite(func: Any) -> bool:
    """Whether a call is made of others."""
    key = 'CompositeImplicitAutograd'
    return func.namespace == 'aten' and torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), key
    )


def backward(
    outputs: Any, gradients: Any = None, enter: Callable[[Node], None] = lambda node: None
) -> None:
    """Fill ``.grad`` of the leaves behind some results.

    Args:
        outputs: Tensors, also nested in lists and dicts; those without gradient are left out.
        gradients: Theirs, in the same nesting; by default new tensors.
        enter: Called with each node before it runs.
    """
    found = tree_leaves(outputs)
    given = [None] * len(found) if gradients is None else tree_leaves(gradients)
    pairs = [
        (y, torch.empty_like(y) if dy is None else dy)
        for y, dy in zip(found, given, strict=True)
        if isinstance(y, Tensor) and y.grad_fn is not None
    ]
    with torch.no_grad():
        _Walk(enter).run(pairs)


class _Walk:
    """A backward pass: nodes in the order of autograd's engine, which is last made first."""

    def __init__(self, enter: Callable[[Node], None]) -> None:
        self.enter = enter
        self.waits: Counter[Node] = Counter()  # for so many nodes that use its results
        self.gradients: dict[Node, dict[int, Tensor]] = defaultdict(dict)  # of its results
        self.ready: list[tuple[int, int, Node]] = []
        self.order = itertools.count()

    def run(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        roots = {y.grad_fn for y, _ in pairs if y.grad_fn is not None}
        todo, seen = list(roots), set(roots)
        while todo:
            for following, _ in todo.pop().next_functions:
                if following is not None:
                    self.waits[following] += 1
                    if following not in seen:
                        seen.add(following)
                        todo.append(following)
        for y, dy in pairs:
            self._add(y.grad_fn, y.output_nr, dy)
        for node in roots:
            self._ready(node)
        while self.ready:
            node = heapq.heappop(self.ready)[2]
            given = self.gradients.pop(node, None)
            if given is not None:
                self.enter(node)
                self._step(node, given)
            for following, _ in node.next_functions:
                if following is not None:
                    self.waits[following] -= 1
                    self._ready(following)

    def _ready(self, node: Node) -> None:
        if not self.waits[node]:
            heapq.heappush(self.ready, (-node._sequence_nr(), next(self.order), node))

    def _add(self, node: Any, number: int, gradient: Tensor) -> None:
        """Add a gradient to what a node has for a result, cast and summed up as the engine does."""
        wanted = node._input_metadata[number]
        if gradient.shape != wanted.shape:
            gradient = gradient.sum_to_size(tuple(wanted.shape))
        gradient = gradient.to(wanted.dtype)
        have = self.gradients[node]
        have[number] = have[number] + gradient if number in have else gradient

    def _step(self, node: Any, given: dict[int, Tensor]) -> None:
        """Run one node, and hand its results on."""
        if hasattr(node, 'variable'):
            leaf = node.variable
            leaf.grad = given[0] if leaf.grad is None else leaf.grad + given[0]
            return
        wanted = node._input_metadata
        gradients = [given.get(i) for i in range(len(wanted))]
        edges = node.next_functions
        if isinstance(node, BackwardCFunction):
            if getattr(node, 'materialize_grads', True):
                gradients = [
                    torch.zeros(tuple(w.shape), dtype=w.dtype, device=w.device) if g is None else g
                    for g, w in zip(gradients, wanted, strict=True)
                ]
            results = _listed(node.apply(*gradients))
            # one result per argument, but one edge per tensor among them
            results = [x for x, need in zip(results, node.needs_input_grad, strict=True) if need]
            edges = [edge for edge in edges if edge[0] is not None]
        else:
            results = _listed(node(*gradients))
        for (following, number), result in zip(edges, results, strict=True):
            if following is not None and result is not None:
                self._add(following, number, result)


def _listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, tuple) else [results]
