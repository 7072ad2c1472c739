"""Kernels in C for the CPU, compiled at their first use.

A kernel is plain C with OpenMP, without headers of Python or torch, so that any C compiler builds
it within seconds. Where there is none, :func:`load` returns None and callers use another
algorithm.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

SWITCH = 'HYBRID_MM_NATIVE'
_FLAGS = ('-O3', '-march=native', '-ffp-contract=fast', '-shared', '-fPIC')
_PATIENCE = 120  # seconds for a compiler that takes a few
_REALS = {torch.float32: 'float', torch.float64: 'double'}


@functools.lru_cache(None)
def load(name: str, dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled ``name.c`` of this folder for numbers of a type.

    It stays in ``$XDG_CACHE_HOME/hybrid_mm/native`` (``~/.cache/...``) for later processes, by
    source, flags, compiler and processor; where that folder does not work, it is compiled again by
    every process, with a warning. ``CC`` names the compiler, by default cc, and may have arguments;
    ``HYBRID_MM_NATIVE=0`` switches compiled kernels off.

    Returns:
        The library, or None for another type, without a compiler and where compiling fails (with a
        warning).
    """
    compiler = _compiler()
    if os.environ.get(SWITCH) == '0' or dtype not in _REALS or not compiler:
        return None
    if not sys.platform.startswith(('linux', 'darwin')):
        return None
    source = Path(__file__).with_name(f'{name}.c')
    kind = [f'-DREAL={_REALS[dtype]}', *['-DDOUBLE'] * (dtype == torch.float64)]
    command = [*compiler, *_FLAGS, *_openmp(), *kind, str(source)]
    try:
        texts = (file.read_text('utf-8') for file in (source, *sorted(source.parent.glob('*.h'))))
        changed = Path(compiler[0]).stat().st_mtime_ns
        parts = (*command, *texts, str(changed), _processor())
        digest = hashlib.sha256('\0'.join(parts).encode(errors='replace')).hexdigest()[:16]
        return _from_cache(command, f'{name}-{_REALS[dtype]}-{digest}')
    except (OSError, subprocess.SubprocessError) as error:
        _warn(f'{source.name} could not be compiled with {shlex.join(compiler)}', error)
        return None


def call(library: ctypes.CDLL, function: str, operator: str, *arguments: object) -> None:
    """Call a function of a kernel with arguments and torch's number of threads.

    Raises:
        MemoryError: The function returned 0.
    """
    if not getattr(library, function)(*arguments, torch.get_num_threads()):
        raise MemoryError(f'{operator}: no memory for the working space of a thread')


def _compiler() -> list[str]:
    """Path and arguments of the compiler; empty if there is none."""
    try:
        name, *arguments = shlex.split(os.environ.get('CC', '')) or ['cc']
    except ValueError:  # a quotation without end
        return []
    path = shutil.which(name)
    return [path, *arguments] if path else []


def _from_cache(command: list[str], stem: str) -> ctypes.CDLL:
    """Load a library of the cache, made first if it is missing or damaged."""
    folder = _cache()
    try:
        if folder is None:
            raise FileNotFoundError('there is no home folder; XDG_CACHE_HOME names another one')
        folder.mkdir(parents=True, exist_ok=True)
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:  # and replace the files of others
            raise PermissionError(f'anybody may write to {folder}')
        for library in folder.glob(f'{stem}-*.so'):
            with contextlib.suppress(OSError):
                if _is_sound(library):
                    return ctypes.CDLL(str(library))
        return _compile(command, folder, stem)
    except OSError as error:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            loaded = _compile(command, Path(temporary), stem)
        _warn(f'{stem}.so cannot be kept and will be compiled again', error, otherwise='')
        return loaded


def _cache() -> Path | None:
    """Folder of compiled kernels, if the environment or the system has a place for it."""
    try:
        place = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    except RuntimeError:  # a user without home folder
        return None
    return place / 'hybrid_mm' / 'native' if place.is_absolute() else None


def _is_sound(library: Path) -> bool:
    """Whether nobody else can have written a library, and it is whole: its name says what is in it.

    A part of a library may well be loaded, and ends the process later.
    """
    status = library.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_mode & stat.S_IWOTH:
        return False
    return status.st_uid in (os.getuid(), 0) and library.stem.endswith(_digest(library))


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()[:16]


def _compile(command: list[str], folder: Path, stem: str) -> ctypes.CDLL:
    """Compile a library into a folder, and load it."""
    # other processes see the whole library or none
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / f'{stem}.so'
        subprocess.run(
            [*command, '-o', str(made)],
            check=True,
            capture_output=True,
            encoding='utf-8',
            errors='replace',
            timeout=_PATIENCE,
        )
        with open(made, 'rb') as file:
            os.fsync(file.fileno())
        library = made.replace(folder / f'{stem}-{_digest(made)}.so')
    for old in folder.glob(f'{stem}-*.so'):  # damaged ones
        if old != library:
            with contextlib.suppress(OSError):
                old.unlink()
    return ctypes.CDLL(str(library))


def _warn(
    problem: str, error: Exception, otherwise: str = ', slower algorithms take its place'
) -> None:
    reason = getattr(error, 'stderr', None) or error
    if isinstance(reason, bytes):
        reason = reason.decode(errors='replace')
    warnings.warn(f'{problem}{otherwise} ({SWITCH}=0 silences this): {reason}', stacklevel=4)


def _openmp() -> tuple[str, ...]:
    """Flags for OpenMP with the runtime that torch has loaded, so that there is one pool."""
    if not sys.platform.startswith('linux'):
        return ()
    runtime = [p for p in (Path(torch.__file__).parent / 'lib').glob('libgomp*') if p.is_file()]
    return ('-fopenmp', *map(str, runtime[:1]))


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(errors='replace').splitlines()
    except OSError:
        return f'{platform.machine()} {platform.processor()}'
    return '\n'.join(sorted({x for x in lines if x.startswith(('model name', 'flags', 'CPU '))}))
