"""Public names of a package that are imported from their files on first use."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def names_from(package: str, files: Mapping[str, str]) -> Callable[[str], Any]:
    """Function for a package's ``__getattr__``: importing the package imports none of its files.

    Args:
        package: The package, its ``__name__``.
        files: Public names, with spaces between them, by the file that they are in.
    """
    places = {name: file for file, names in files.items() for name in names.split()}

    def imported(name: str) -> Any:
        if name not in places:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        try:
            module = import_module(f'{package}.{places[name]}')
        except AttributeError as error:  # Python would say no more than "cannot import name"
            raise ImportError(f'{package}.{places[name]}: {error}') from error
        return getattr(module, name)

    return imported
