"""Kernels in C for the CPU, compiled at their first use.

A kernel is plain C with OpenMP, without headers of Python or torch, so that any C compiler builds
it within seconds. Where there is none, :func:`load` returns None and callers use another
algorithm.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

SWITCH = 'HYBRID_MM_NATIVE'
_FLAGS = ('-O3', '-march=native', '-ffp-contract=fast', '-shared', '-fPIC')
_REALS = {torch.float32: 'float', torch.float64: 'double'}


@functools.lru_cache(None)
def load(name: str, dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled ``name.c`` of this folder for numbers of a type.

    It stays in ``$XDG_CACHE_HOME/hybrid_mm/native`` (``~/.cache/...``) for later processes, by
    source, flags, compiler and processor. ``CC`` names the compiler, by default cc;
    ``HYBRID_MM_NATIVE=0`` switches compiled kernels off.

    Returns:
        The library, or None for another type, without a compiler and where compiling fails (with a
        warning).
    """
    compiler = shutil.which(os.environ.get('CC', 'cc'))
    if os.environ.get(SWITCH) == '0' or dtype not in _REALS or not compiler:
        return None
    if not sys.platform.startswith(('linux', 'darwin')):
        return None
    source = Path(__file__).with_name(f'{name}.c')
    command = [compiler, *_FLAGS, *_openmp(), f'-DREAL={_REALS[dtype]}', str(source)]
    parts = (*command, source.read_text(), str(Path(compiler).stat().st_mtime_ns), _processor())
    digest = hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:16]
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    library = cache / 'hybrid_mm' / 'native' / f'{name}-{_REALS[dtype]}-{digest}.so'
    try:
        if not library.exists():
            _compile(command, library)
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, 'stderr', None) or error
        warnings.warn(
            f'{source.name} could not be compiled with {compiler}, slower algorithms take its '
            f'place ({SWITCH}=0 silences this): {reason}',
            stacklevel=2,
        )
        return None


def _compile(command: list[str], library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    # other processes see the whole library or none
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        subprocess.run(
            [*command, '-o', str(made)], check=True, capture_output=True, text=True, timeout=300
        )
        made.replace(library)


def _openmp() -> tuple[str, ...]:
    """Flags for OpenMP with the runtime that torch has loaded, so that there is one pool."""
    if not sys.platform.startswith('linux'):
        return ()
    runtime = [p for p in (Path(torch.__file__).parent / 'lib').glob('libgomp*') if p.is_file()]
    return ('-fopenmp', *map(str, runtime[:1]))


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return f'{platform.machine()} {platform.processor()}'
    return '\n'.join(sorted({x for x in lines if x.startswith(('model name', 'flags', 'CPU '))}))
