"""Declare an operator for torch: its kernel, the shapes of its results and its gradient at once."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hybrid_mm.ops.precision import no_autocast

__all__ = ['BODIES', 'custom_op']

P = ParamSpec('P')
R = TypeVar('R')
Fake = Callable[..., Tensor | Sequence[Tensor]]

_TENSORS = {Tensor: 'Tensor', Tensor | None: 'Tensor?'}
# written out because torch up to 2.6 at least does not read ``list[int]`` from annotations
_TYPES = _TENSORS | {
    int: 'SymInt',
    float: 'float',
    bool: 'bool',
    str: 'str',
    list[int]: 'SymInt[]',
    Sequence[int]: 'SymInt[]',
    list[bool]: 'bool[]',
    list[Tensor]: 'Tensor[]',
    tuple[Tensor, Tensor]: '(Tensor, Tensor)',
    tuple[Tensor, Tensor, Tensor]: '(Tensor, Tensor, Tensor)',
}

BODIES: dict[str, Callable] = {}
"""What the operators do, by their names."""


def custom_op(
    name: str,
    *,
    fake: Fake,
    backward: Callable[..., list[Tensor]] | None = None,
    backward_fake: Fake | None = None,
    keep: Sequence[int] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make an operator of a function that changes none of its arguments.

    The function takes tensors (some of them may be None) first, then numbers, strings and lists; it
    returns a tensor or a tuple of tensors. Function and gradient run without autocast, and not at
    all if the first tensor is an empty batch: results without elements and gradients of zero need
    no work. torch compiles and exports the operator as one node of a graph. There is no second
    derivative: asked for one, it raises.

    Args:
        name: ``hybrid_mm::NAME``.
        fake: Function of the same arguments that returns empty results of the right shape, type and
            memory format.
        backward: Its gradient, which becomes the operator ``NAME_backward``. It takes the
            gradients of all results (with several results, None for those without), the results
            that ``keep`` names and the arguments; it returns contiguous gradients of the tensors
            that are not None. If it has an argument ``needs`` after the gradients, that is a bool
            for every tensor argument, and it returns the gradients that are needed only. All
            tensor arguments are kept for it.
        backward_fake: ``fake`` of the gradient; only for gradients that are not contiguous.
        keep: Numbers of the results that are kept for the backward pass, too.

    Raises:
        TypeError: A tensor after other arguments, or an annotation that torch has no word for.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        count = _count_tensors(function)
        operator = _declare(name, function, fake)
        if backward is not None:
            shapes = backward_fake or _Contiguous(backward, count)
            gradient = _declare(f'{name}_backward', backward, shapes)
            gradient.register_autograd(_Refusal(name))
            results = _TYPES[inspect.signature(function).return_annotation].count('Tensor')
            selects = 'needs' in inspect.signature(backward).parameters

            def setup_context(ctx: Any, inputs: tuple, output: Tensor | tuple[Tensor, ...]) -> None:
                ctx.others = inputs[count:]
                ctx.save_for_backward(*(output[i] for i in keep), *inputs[:count])
                if results > 1:  # zeros for a result without gradient would be memory for nothing
                    ctx.set_materialize_grads(False)

            def differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
                tensors = ctx.saved_tensors
                nothing = (None,) * len(ctx.others)
                if all(grad is None for grad in grads):
                    return *(None,) * count, *nothing
                given = [x is not None for x in tensors[len(keep) :]]
                extra = []
                if selects:
                    given = [x and y for x, y in zip(given, ctx.needs_input_grad, strict=False)]
                    extra = [given]
                found = iter(gradient(*grads, *extra, *tensors, *ctx.others))
                return *(next(found) if there else None for there in given), *nothing

            operator.register_autograd(differentiate, setup_context=setup_context)
        return cast(Callable[P, R], operator)

    return decorate


def _count_tensors(function: Callable) -> int:
    """Number of tensor arguments, which come first."""
    parameters = inspect.signature(function).parameters.values()
    tensors = [parameter.annotation in _TENSORS for parameter in parameters]
    count = sum(tensors)
    if not all(tensors[:count]):
        raise TypeError(f'{function.__qualname__}: tensors must come before other arguments')
    return count


def _declare(name: str, function: Callable, fake: Fake) -> Any:
    """Register a function and the shapes of its results."""
    signature = inspect.signature(function)
    try:
        arguments = [f'{_TYPES[p.annotation]} {n}' for n, p in signature.parameters.items()]
        schema = f'({", ".join(arguments)}) -> {_TYPES[signature.return_annotation]}'
    except KeyError as error:
        raise TypeError(f'{function.__qualname__}: annotation {error} of an operator') from None

    @functools.wraps(function)
    def kernel(*args: Any) -> Any:
        first = next(x for x in args if isinstance(x, Tensor))
        if not first.numel():
            return tree_map(torch.zero_, fake(*args))
        with no_autocast(first):
            return function(*args)

    BODIES[name] = kernel
    if not hasattr(torch.library, 'custom_op'):
        return _Operator(name, kernel, schema, fake)
    operator = torch.library.custom_op(name, kernel, mutates_args=(), schema=schema)
    operator.register_fake(fake)
    return operator


class _Operator:
    """What ``torch.library.custom_op`` makes, of the older parts of ``torch.library``.

    It is one node of compiled graphs and one call for modes, and keeps the same tensors, too. For
    torch 2.1 to 2.3; remove when torch >= 2.4 is required.
    """

    def __init__(self, name: str, kernel: Callable, schema: str, fake: Fake) -> None:
        namespace, self._name = name.split('::')
        # kept by torch, so that our modules may be loaded anew; what is declared last counts
        declared = vars(torch.library).setdefault('_hybrid_mm_operators', {})
        before, declared[name] = declared.get(name), self
        self._before = before
        if before is not None:
            before._library = None  # the last reference: torch forgets it
            vars(getattr(torch.ops, namespace)).pop(self._name, None)
        self._library = torch.library.Library(namespace, 'FRAGMENT')
        self._library.define(self._name + schema)
        self._library.impl(self._name, kernel, 'CompositeExplicitAutograd')
        self._library.impl(self._name, fake, 'Meta')
        self._overload = getattr(getattr(torch.ops, namespace), self._name).default
        while before is not None:  # whoever still has one of them calls this one
            before._overload = self._overload
            before = before._before
        functools.update_wrapper(self, kernel)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._overload(*args, **named)

    def register_autograd(
        self, backward: Callable, *, setup_context: Callable | None = None
    ) -> None:
        """Differentiate by ``backward(ctx, *grads)``."""
        overload = self._overload

        def without_gradient(*args: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                return overload(*args)

        class Differentiable(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                output = without_gradient(*args)
                if setup_context is not None:
                    setup_context(ctx, inputs=args, output=output)
                # what is in a list would have no gradient
                return tuple(output) if isinstance(output, list) else output

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                return backward(ctx, *grads)

        def differentiable(*args: Any) -> Any:
            tensors = (x for x in args if isinstance(x, Tensor))
            if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
                return Differentiable.apply(*args)
            return without_gradient(*args)

        self._library.impl(self._name, differentiable, 'Autograd')


class _Refusal:
    """The gradient of a gradient: an error."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, ctx: Any, *grads: Any) -> None:
        raise NotImplementedError(
            f"{self.name} has no second derivative; impl='reference' of the module or operator, or "
            'HYBRID_MM_IMPL=reference in the environment, has one'
        )


class _Contiguous:
    """Contiguous gradients for the tensors among the arguments of a gradient."""

    def __init__(self, backward: Callable, count: int) -> None:
        names = list(inspect.signature(backward).parameters)
        annotations = [p.annotation for p in inspect.signature(backward).parameters.values()]
        last = max(i for i, annotation in enumerate(annotations) if annotation in _TENSORS) + 1
        self.tensors = slice(last - count, last)
        self.needs = names.index('needs') if 'needs' in names else None

    def __call__(self, *args: Any) -> list[Tensor]:
        tensors = args[self.tensors]
        needed = [True] * len(tensors) if self.needs is None else args[self.needs]
        return [
            x.new_empty(x.shape)
            for x, needs in zip(tensors, needed, strict=True)
            if x is not None and needs
        ]
