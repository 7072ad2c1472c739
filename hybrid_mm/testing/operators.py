"""``check_operator``: a fast way to compute something against the plain formula."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.compat.torch_api import tree_leaves
from hybrid_mm.testing.outcome import (
    ContractError,
    DoesNotApply,
    Report,
    require,
    require_equal,
    require_near,
    require_same,
    run_checks,
    told,
)

Function = Callable[..., Tensor | Sequence[Tensor]]
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class _Operator:
    """A fast function, its formula, and inputs in double precision.

    Args:
        fast: The function under test.
        reference: The formula.
        inputs: Their arguments by name; tensors of floating point are differentiated.
        batched: Names of those whose first axis is the batch.
        dtypes: Types that the function takes besides float64.
    """

    def __init__(
        self,
        fast: Function,
        reference: Function,
        inputs: Mapping[str, Any],
        batched: Collection[str],
        dtypes: Sequence[torch.dtype],
    ) -> None:
        self.fast, self.reference, self.batched, self.dtypes = fast, reference, batched, dtypes
        self.inputs = {
            name: value.detach().double() if _is_float(value) else value
            for name, value in inputs.items()
        }
        self.differentiated = [n for n, value in self.inputs.items() if _is_float(value)]
        if not self.differentiated:
            raise ValueError('inputs of check_operator have no tensor of floating point')

    def leaves(self, change: Callable[[str, Tensor], Tensor] = lambda name, x: x) -> dict[str, Any]:
        """Inputs with gradients, after a change of each tensor."""
        changed = dict(self.inputs)
        for name in self.differentiated:
            changed[name] = change(name, self.inputs[name]).detach().requires_grad_()
        return changed

    def run(
        self,
        function: Function,
        inputs: Mapping[str, Any],
        turn: Callable[[Tensor], Tensor] = lambda dy: dy,
    ) -> dict[str, Tensor | None]:
        """Outputs and gradients by name, those of outputs drawn from one seed."""
        outputs = _outputs(function, inputs)
        require(
            any(y.requires_grad for y in outputs),
            f'outputs of {_named(function)}: expected to depend on an input, found no gradient '
            '(detached, or computed without torch)',
        )
        generator = torch.Generator().manual_seed(0)
        dys = [
            turn(torch.randn(y.shape, dtype=torch.float64, generator=generator).to(y.dtype))
            for y in outputs
        ]
        leaves = [inputs[name] for name in self.differentiated]
        grads = torch.autograd.grad(outputs, leaves, dys, allow_unused=True)
        found: dict[str, Tensor | None] = {f'output {i}': y for i, y in enumerate(outputs)}
        names = [f'gradient of {_shown(name)}' for name in self.differentiated]
        return found | dict(zip(names, grads, strict=True))


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _shown(name: str) -> str:
    """An input as messages name it."""
    return f'argument {name}' if name.isdigit() else name


def _call(function: Function, inputs: Mapping[str, Any]) -> Any:
    """Call with arguments by their place if they came as a sequence, else by name."""
    if all(name.isdigit() for name in inputs):
        return function(*inputs.values())
    return function(**inputs)


def _named(function: Function) -> str:
    return getattr(function, '__name__', type(function).__name__)


def _outputs(function: Function, inputs: Mapping[str, Any]) -> list[Tensor]:
    """All outputs; they have to be tensors."""
    outputs = tree_leaves(_call(function, inputs))
    kinds = [type(y).__name__ for y in outputs]
    require(
        bool(outputs) and all(isinstance(y, Tensor) for y in outputs),
        f'outputs of {_named(function)}: expected tensors, found {", ".join(kinds) or "none"}',
    )
    return outputs


def _compare(
    found: Mapping[str, Tensor | None],
    expected: Mapping[str, Tensor | None],
    tolerance: float,
    how: str,
) -> None:
    require_equal(list(found), list(expected), f'{how}: results')
    for name, b in expected.items():
        a = found[name]
        if a is None or b is None:  # an argument without influence: no gradient is a zero
            other = b if a is None else a
            require(
                other is None or not other.any(),
                f'{how}, {name}: expected {"one" if a is None else "none"}, '
                f'found {"none" if a is None else "one"}',
            )
            continue
        require_near(a, b, tolerance, f'{how}, {name}', floor=1e-12)


def _values_and_gradients(op: _Operator) -> None:
    """In float64 results and gradients are those of the formula."""
    found, expected = op.run(op.fast, op.leaves()), op.run(op.reference, op.leaves())
    _compare(found, expected, TOLERANCES[torch.float64], 'float64')


def _gradcheck(op: _Operator) -> None:
    """The gradient of every input is the derivative, by differences."""
    for name in op.differentiated:

        def function(x: Tensor, name: str = name) -> tuple[Tensor, ...]:
            return tuple(_outputs(op.fast, {**op.inputs, name: x}))

        try:
            # the slow mode's message is a whole matrix
            torch.autograd.gradcheck(function, op.leaves()[name], fast_mode=True)
        except (RuntimeError, AssertionError) as error:
            text = ' '.join(str(error).partition('The above quantities')[0].split())
            raise ContractError(f'gradient of {_shown(name)}, gradcheck: {text}') from error


def _strides(op: _Operator) -> None:
    """Inputs and gradients of any strides give the same results."""
    expected = op.run(op.fast, op.leaves())

    def turned(name: str, x: Tensor) -> Tensor:
        """The same numbers with the axes in reverse order in memory."""
        order = list(reversed(range(x.ndim)))
        return x.permute(order).contiguous().permute(order)

    def part(name: str, x: Tensor) -> Tensor:
        """The same numbers inside of a larger tensor."""
        if not x.ndim:
            return x
        return torch.cat([x, torch.full_like(x, 7)], -1)[..., : x.shape[-1]]

    tolerance = TOLERANCES[torch.float64]
    for how, change in (('axes in reverse order', turned), ('part of a larger tensor', part)):
        found = op.run(op.fast, op.leaves(change), functools.partial(change, ''))
        _compare(found, expected, tolerance, f'strides ({how})')

    def rows(dy: Tensor) -> Tensor:
        """A gradient of which all elements of a row are one number in memory."""
        return dy[..., :1].expand(dy.shape) if dy.ndim else dy

    found = op.run(op.fast, op.leaves(), rows)
    expected = op.run(op.fast, op.leaves(), lambda dy: rows(dy).contiguous())
    _compare(found, expected, tolerance, 'strides (gradient of stride 0)')


def _first_images(op: _Operator, number: int) -> tuple[dict[str, Any], dict[str, Tensor | None]]:
    """A part of the batch, and what the formula gives for it."""
    part = op.leaves(lambda name, x: x[:number] if name in op.batched else x)
    try:
        return part, op.run(op.reference, part)
    except (RuntimeError, ValueError, IndexError) as error:
        names = ', '.join(map(_shown, sorted(op.batched)))
        raise ContractError(
            f'the formula fails with a batch of {number}: {told(error)}; batched= says that the '
            f'first axis of {names}, and of no other input, is the batch'
        ) from error


def _one_image(op: _Operator) -> None:
    """The first image on its own gives the results and gradients of the formula."""
    part, expected = _first_images(op, 1)
    _compare(op.run(op.fast, part), expected, TOLERANCES[torch.float64], 'batch of one')


def _empty_batch(op: _Operator) -> None:
    """A batch without images gives results and gradients of the right shape."""
    empty, expected = _first_images(op, 0)
    found = op.run(op.fast, empty)
    for name, b in expected.items():
        a = found[name]
        if a is not None and b is not None:
            require_equal(tuple(a.shape), tuple(b.shape), f'empty batch: shape of {name}')
            require(not a.isnan().any(), f'empty batch, {name}: found NaN')


def _dtypes(op: _Operator) -> None:
    """Other types: results and gradients have the type of the inputs, and are near."""
    if not op.dtypes:
        raise DoesNotApply('dtypes=()')
    for dtype in op.dtypes:

        def rounded(name: str, x: Tensor, dtype: torch.dtype = dtype) -> Tensor:
            return x.to(dtype)

        def widened(name: str, x: Tensor, dtype: torch.dtype = dtype) -> Tensor:
            return x.to(dtype).double()

        expected = op.run(op.reference, op.leaves(widened))
        found = op.run(op.fast, op.leaves(rounded))
        for name, value in found.items():
            if value is not None:
                require_equal(value.dtype, dtype, f'{dtype}, type of {name}')
        _compare(found, expected, TOLERANCES[dtype], str(dtype))


def _pure(op: _Operator) -> None:
    """No input is changed; the same inputs give the same results."""
    inputs = op.leaves()
    before = {name: inputs[name].detach().clone() for name in op.differentiated}
    first, second = op.run(op.fast, inputs), op.run(op.fast, inputs)
    for name, value in before.items():
        require_same(inputs[name].detach(), value, f'{_shown(name)} after the call')
    for name, value in first.items():
        if value is not None:
            _compare({name: second[name]}, {name: value}, 1e-12, 'two calls')


CHECKS: dict[str, Callable[[_Operator], None]] = {
    'values_and_gradients': _values_and_gradients,
    'gradcheck': _gradcheck,
    'strides': _strides,
    'one_image': _one_image,
    'empty_batch': _empty_batch,
    'dtypes': _dtypes,
    'pure': _pure,
}
OPERATOR_CHECKS = tuple(CHECKS)
"""Names of the checks of :func:`check_operator`."""


def check_operator(
    fast: Function,
    reference: Function,
    inputs: Sequence[Any] | Mapping[str, Any],
    *,
    batched: str | int | Collection[str | int] | None = None,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16),
    only: str | Collection[str] = (),
    skip: str | Collection[str] = (),
) -> Report:
    """Check a fast way to compute something against its plain formula.

    In float64: results and all gradients; gradients by differences; inputs and gradients of any
    strides; the first image on its own; a batch without images; that no input is changed. Then
    other types against float64.

    Args:
        fast: Function of the inputs that returns a tensor, or several.
        reference: The formula, a function of the same inputs.
        inputs: Arguments, by place or by name; tensors of floating point are differentiated. Choose
            small ones, of unequal sizes.
        batched: Names or places of the inputs whose first axis is the batch; by default the first.
        dtypes: Types besides float64.
        only: Checks to run, names of ``OPERATOR_CHECKS``; by default all.
        skip: Checks to leave out.

    Returns:
        What was checked and what was skipped.

    Raises:
        ContractError: Checks fail; the text has a line for each, with what was expected and what
            was found.
        ValueError: A check or an input has an unknown name, no input is a tensor of floating
            point, or ``dtypes`` holds something else.

    Example:
        >>> import torch
        >>> from hybrid_mm.testing import check_operator
        >>> report = check_operator(torch.sigmoid, lambda x: 1 / (1 + (-x).exp()),
        ...                         [torch.randn(2, 3)])
    """
    if isinstance(inputs, Tensor):
        raise ValueError('inputs must be a list of arguments or a dict by name, got a tensor')
    if not isinstance(inputs, Mapping):
        inputs = {str(place): value for place, value in enumerate(inputs)}
    named = dict(inputs)
    if batched is None:
        batched = list(named)[:1]
    elif isinstance(batched, int) or batched in named:
        batched = [batched]
    batch = {str(one) for one in batched}
    if batch - set(named):
        unknown = ', '.join(sorted(batch - set(named)))
        raise ValueError(f'batched names {unknown}, but the inputs are {", ".join(named)}')
    if wrong := [one for one in dtypes if not isinstance(one, torch.dtype)]:
        raise ValueError(f'dtypes must be types of torch, as torch.float16, got {wrong[0]!r}')
    op = _Operator(fast, reference, named, batch, dtypes)
    return run_checks(_named(fast), CHECKS, op, only, skip)
