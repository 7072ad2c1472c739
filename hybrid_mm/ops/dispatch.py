"""Names of algorithms."""

IMPLS = ('engine', 'reference')


def check_impl(impl: str) -> None:
    """Check the name of an algorithm of ACmix's operators.

    Raises:
        ValueError: No such algorithm.
    """
    if impl not in IMPLS:
        raise ValueError(f'impl must be one of {", ".join(IMPLS)}, got {impl!r}')
