"""Imported by Python as it starts, in the programs that ``python -m hybrid_mm run`` starts."""

import contextlib
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

with contextlib.suppress(ImportError):  # another Python than the one that has it
    from hybrid_mm.compat import after_import

    after_import.apply()


def _next() -> None:
    """Import the ``sitecustomize`` that this one hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    path = [folder for folder in sys.path if os.path.abspath(folder) != here]
    spec = PathFinder.find_spec('sitecustomize', path)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules['sitecustomize'] = module
        spec.loader.exec_module(module)


_next()
