"""Backward passes without autograd's engine, which wants a real GPU for tensors of one."""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.compat.torch_api import tree_leaves

Node = Any  # torch.autograd.graph.Node, of which torch's stubs know little
Gradients = dict[int, Tensor]  # by the number of the node's result


def backward(
    outputs: Any, gradients: Any = None, enter: Callable[[Node], None] = lambda node: None
) -> None:
    """Add gradients to the leaves behind results, as ``torch.autograd.backward`` does.

    What the engine computes beside the nodes is computed here, too: sums of gradients that meet,
    and copies that leaves keep.

    Args:
        outputs: Tensors, also nested in lists and dicts; those without gradient are left out.
        gradients: Theirs, in the same nesting; by default new tensors.
        enter: Is called with every node before it runs.
    """
    found = tree_leaves(outputs)
    cotangents = [None] * len(found) if gradients is None else tree_leaves(gradients)
    ends = [
        (y.grad_fn, y.output_nr, torch.empty_like(y) if gradient is None else gradient)
        for y, gradient in zip(found, cotangents, strict=True)
        if isinstance(y, Tensor) and y.grad_fn is not None
    ]
    roots = {node for node, *_ in ends}
    waits_for = _users(roots)
    given: defaultdict[Node, Gradients] = defaultdict(dict)
    for node, index, gradient in ends:
        _collect(given[node], node, index, gradient)
    del ends
    queue: list[tuple[int, int, Node]] = []
    number = itertools.count()

    def ready(node: Node) -> None:
        heapq.heappush(queue, (-node._sequence_nr(), next(number), node))

    for node in roots:
        if not waits_for[node]:
            ready(node)
    with torch.no_grad():
        while queue:
            node = heapq.heappop(queue)[2]
            own = given.pop(node, None)
            if own:
                enter(node)
                for following, index, gradient in _run(node, own):
                    _collect(given[following], following, index, gradient)
            del own
            for following, _ in node.next_functions:
                if following is not None:
                    waits_for[following] -= 1
                    if not waits_for[following]:
                        ready(following)


def _users(roots: Iterable[Node]) -> Counter[Node]:
    """How many nodes hand gradients to each node behind roots."""
    users: Counter[Node] = Counter()
    seen = set(roots)
    todo = list(seen)
    while todo:
        for following, _ in todo.pop().next_functions:
            if following is not None:
                users[following] += 1
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
    return users


def _collect(have: Gradients, node: Node, index: int, gradient: Tensor) -> None:
    """Add a gradient to those of a node, in the shape and type of the node's result."""
    expected = node._input_metadata[index]
    if gradient.shape != tuple(expected.shape):
        gradient = gradient.sum_to_size(tuple(expected.shape))
    gradient = gradient.to(expected.dtype)
    have[index] = have[index] + gradient if index in have else gradient


def _run(node: Node, gradients: Gradients) -> list[tuple[Node, int, Tensor]]:
    """Call a node; return gradients and where they go."""
    if type(node).__name__ == 'AccumulateGrad':
        _accumulate(node.variable, gradients[0])
        return []
    following = node.next_functions
    arguments = [gradients.get(i) for i in range(len(node._input_metadata))]
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        if getattr(node, 'materialize_grads', getattr(node, '_materialize_grads', True)):
            arguments = [
                torch.zeros(tuple(m.shape), dtype=m.dtype, device=m.device) if g is None else g
                for g, m in zip(arguments, node._input_metadata, strict=True)
            ]
        results = node.apply(*arguments)
        results = results if isinstance(results, tuple) else (results,)
        # a result per argument of forward, but a following node only per tensor among them
        results = [g for g, n in zip(results, node.needs_input_grad, strict=True) if n]
        following = [(n, i) for n, i in following if n is not None]
    else:
        results = node(*arguments)
        results = results if isinstance(results, tuple) else (results,)
    return [
        (node, index, gradient)
        for (node, index), gradient in zip(following, results, strict=True)
        if node is not None and gradient is not None
    ]


def _accumulate(variable: Tensor, gradient: Tensor) -> None:
    """Add a gradient to that of a leaf, which copies the first one if it is laid out otherwise."""
    if variable.grad is not None:
        variable.grad = variable.grad + gradient
    elif _layout(gradient) == _layout(variable):
        variable.grad = gradient.detach()
    else:
        variable.grad = torch.empty_like(variable).copy_(gradient)


def _layout(x: Tensor) -> list[int]:
    return [stride for stride, side in zip(x.stride(), x.shape, strict=True) if side > 1]
