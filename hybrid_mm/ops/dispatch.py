"""Names of algorithms: one vocabulary for all operators.

Every operator, and every module made of operators, takes ``impl``: 'auto' (the algorithm that is
known or measured to be the fastest for device, type and shape), 'reference' (the plain formulation,
the oracle of the tests and the form that is exported), or one of the names that
:data:`ALGORITHMS` lists for the operator.

What 'auto' means can be set for a whole program, by the environment variable ``HYBRID_MM_IMPL`` or
for a block of code by :func:`default_impl`: operators that have an algorithm of that name take it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hybrid_mm.compat.torch_api import getenv
from hybrid_mm.errors import UserError
from hybrid_mm.ops.export import exporting

__all__ = ['ALGORITHMS', 'check_impl', 'choices', 'chosen_impl', 'default_impl', 'resolve']

VARIABLE = 'HYBRID_MM_IMPL'

ALGORITHMS: dict[str, tuple[str, ...]] = {
    'local_attention': ('tiled', 'measured', 'triton'),
    'partition_attention': ('tiled', 'measured', 'windows', 'triton'),
    'decomposed_attention': ('tiled', 'fused', 'triton'),
    'distance_attention': ('tiled', 'mask', 'triton'),
    'evolving_attention': ('tiled', 'triton'),
    'ghost_attention': ('tiled', 'triton'),
    'vector_attention': ('tiled', 'triton'),
    'mixed_shift': ('tiled', 'convolution'),
    'learned_query_attention': ('tiled', 'triton'),
    'grid_convolution': ('bmm', 'fft', 'fused', 'triton'),
    'depthwise_convolution': ('fused',),
    'separable_attention': ('tiled',),
    'global_filter': ('fft',),
}
"""Algorithms of each operator besides 'reference', the one that 'auto' is by default first.

'triton' runs on GPUs only, where 'auto' takes it, see :mod:`hybrid_mm.ops.kernels`.
"""

_NAMES = {'reference'}.union(*ALGORITHMS.values())

# of the program, not of a context: torch.compile up to 2.11 at least reads no context variables
_default = 'auto'


def register(operator: str, *algorithms: str) -> None:
    """Let ``impl`` choose between algorithms of an operator of another package.

    Args:
        operator: Its name, which should begin with that of its package: ``my_net.attention``.
        algorithms: Names besides 'reference', the one that 'auto' is by default first.

    Raises:
        ValueError: The operator has other algorithms already, or no name is left to choose.
    """
    reserved = {'auto', 'reference'}.intersection(algorithms)
    if not algorithms or reserved:
        raise ValueError(
            f'{operator}: expected names of algorithms other than auto and reference, '
            f'got {algorithms}'
        )
    if ALGORITHMS.setdefault(operator, algorithms) != algorithms:
        raise ValueError(
            f'the operator {operator} has the algorithms {ALGORITHMS[operator]} already, got '
            f'{algorithms}; name it after its package, as my_net.{operator}'
        )
    _NAMES.update(algorithms)


def choices(*operators: str) -> tuple[str, ...]:
    """Values of ``impl`` that all of the operators take.

    Args:
        *operators: Keys of :data:`ALGORITHMS`.
    """
    first, *others = operators
    names = [n for n in ALGORITHMS[first] if all(n in ALGORITHMS[o] for o in others)]
    return 'auto', 'reference', *names


def check_impl(impl: str, *operators: str) -> None:
    """Check the name of an algorithm.

    Args:
        impl: The name.
        operators: Operators that take it, keys of :data:`ALGORITHMS`.

    Raises:
        ValueError: One of the operators has no such algorithm.
    """
    known = choices(*operators)
    if impl not in known:
        raise ValueError(
            f'impl must be one of {", ".join(known)} for {" and ".join(operators)}, got {impl!r}'
        )


def chosen_impl(impl: str, operator: str) -> str:
    """Check ``impl``, and replace 'auto' by what the user has set for all operators.

    Args:
        impl: The name that was given.
        operator: Key of :data:`ALGORITHMS`.

    Returns:
        An algorithm of the operator, or 'auto' if nothing is set that it has.

    Raises:
        ValueError: An unknown name, also in the environment variable.
    """
    check_impl(impl, operator)
    if impl != 'auto':
        return impl
    name = _default
    if name == 'auto':
        name = getenv(VARIABLE) or 'auto'
        if name != 'auto' and name not in _NAMES:
            raise UserError(
                f'{VARIABLE} must be auto or one of {", ".join(sorted(_NAMES))}, got {name!r}'
            )
    return name if name in choices(operator) else 'auto'


def resolve(impl: str, operator: str, fastest: Callable[[], str] | None = None) -> str:
    """Name of the algorithm that an operator runs.

    An exported graph has the plain formulation, which needs nothing of this package.

    Args:
        impl: What the caller asks for.
        operator: Name of the operator.
        fastest: Chooses by device, type and shape, where 'auto' leaves it open; by default that is
            the first of :data:`ALGORITHMS`.

    Raises:
        ValueError: An unknown name.
    """
    impl = chosen_impl(impl, operator)
    if exporting():
        return 'reference'
    if impl != 'auto':
        return impl
    return ALGORITHMS[operator][0] if fastest is None else fastest()


@contextmanager
def default_impl(name: str) -> Iterator[None]:
    """Let 'auto' mean an algorithm within a block, for the operators that have it.

    Args:
        name: 'auto', 'reference', or an algorithm of any operator.

    Raises:
        ValueError: No operator has such an algorithm.

    Example:
        >>> with default_impl('reference'):
        ...     features = backbone(images)
    """
    if name != 'auto' and name not in _NAMES:
        raise ValueError(f'impl must be auto or one of {", ".join(sorted(_NAMES))}, got {name!r}')
    global _default
    before, _default = _default, name
    try:
        yield
    finally:
        _default = before
