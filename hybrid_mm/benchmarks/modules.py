"""Modules of benchmarks: ours by a short name, those of others by their module or file."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from hybrid_mm.benchmarks import SUBCOMMANDS
from hybrid_mm.errors import UserError


def benchmark_module(name: str) -> ModuleType:
    """Import a benchmark, a module with ``cases(device, dtype, quick)`` and ``PACKAGES``.

    Args:
        name: A short name, the dotted name of a module, or a file ``*.py``.

    Raises:
        UserError: There is no such module, or it is no benchmark.
    """
    if name in SUBCOMMANDS:
        return importlib.import_module(SUBCOMMANDS[name])
    module = _from_file(Path(name)) if name.endswith('.py') else _by_name(name)
    missing = [part for part in ('cases', 'PACKAGES') if not hasattr(module, part)]
    if missing:
        raise UserError(
            f'{name} is no benchmark, it has no {" and no ".join(missing)}: expected '
            'cases(device, dtype, quick), a generator of hybrid_mm.benchmarks.core.Case, and '
            'PACKAGES, names of packages'
        )
    return module


def short_name(name: str) -> str:
    """Name of a benchmark for the files of its results."""
    return Path(name).stem if name.endswith('.py') else name


def _from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f'{path} does not exist; expected the file of a benchmark')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _by_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f'{name}.'.startswith(f'{error.name}.'):
            raise  # the module is there, and imports one that is not
        raise UserError(
            f'{name!r} cannot be imported: install the package, or add its folder to PYTHONPATH'
        ) from error
