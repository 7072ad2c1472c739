"""Compile recorded launches of Triton kernels for GPUs that are not there.

A launch becomes the program that Triton's own rules make of it: types of the arguments, integers
equal to 1 as constants, pointers and integers that 16 divides marked as such. ptxas, which belongs
to Triton, says what the program needs.
"""

import contextlib
import functools
import io
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from triton import compile as compile_source
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.cache import get_cache_manager
from triton.runtime.jit import create_function_from_signature

from hybrid_mm.ops.kernels import Launch


class GPU(NamedTuple):
    """What a multiprocessor has.

    Attributes:
        capability: As in ``sm_80``.
        shared: Bytes of shared memory.
        most_shared: Bytes that one program may have.
    """

    capability: int
    shared: int
    most_shared: int
    registers: int = 65536
    warps: int = 64
    programs: int = 32


# CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability"
GPUS = {
    'sm_80': GPU(80, shared=164 * 1024, most_shared=163 * 1024),
    'sm_90': GPU(90, shared=228 * 1024, most_shared=227 * 1024),
}
_RESERVED = 1024  # bytes of shared memory that the system takes for each program
_HALF = ('f16', 'bf16')
_LOG = 'ptxas.log'


class Figures(NamedTuple):
    """What a compiled kernel needs, and what is wrong with it.

    Attributes:
        registers: Of one thread.
        spills: Bytes that one thread stores to and loads from memory for lack of registers.
        shared: Bytes of shared memory of one program.
        warps: Of one program.
        resident: Warps that a multiprocessor holds at a time.
        products: Matrix products of each type that run on tensor cores, e.g. ``('f16',)``.
        faults: What it must not do.
    """

    registers: int = 0
    spills: int = 0
    shared: int = 0
    warps: int = 0
    resident: int = 0
    products: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


class _Address:
    """Stands for a tensor: its type, and where it starts in memory that is aligned as usual."""

    def __init__(self, x: Tensor) -> None:
        self.dtype = x.dtype
        self.start = x.storage_offset() * x.element_size()

    def data_ptr(self) -> int:
        return self.start


@dataclass(frozen=True)
class Program:
    """A kernel with all that the compiler knows of its arguments.

    Attributes:
        key: Equal for equal programs.
        source: For the compiler.
        options: For the compiler, too.
        target: The GPU.
    """

    key: str
    source: ASTSource
    options: dict[str, Any]
    target: str


def program(launch: Launch, target: str) -> Program:
    """Specialise a kernel for the arguments of a launch, as Triton does at its first call."""
    backend = _backend(target)
    arguments = {name: _value(x) for name, x in launch.arguments.items()}
    # as in JITFunction.run
    options = launch.options | dict(
        debug=launch.kernel.debug or knobs.runtime.debug,
        instrumentation_mode=knobs.compilation.instrumentation_mode,
    )
    bound, specialization, options = _binder(launch.kernel, target)(**arguments, **options)
    options, signature, constants, attributes = launch.kernel._pack_args(
        backend, options, bound, specialization, options
    )
    source = ASTSource(launch.kernel, signature, constants, attributes)
    name = f'{launch.kernel.__module__}.{launch.kernel.fn.__qualname__}'
    key = repr((name, specialization, options.__dict__))
    return Program(key, source, options.__dict__, target)


def _value(x: Any) -> Any:
    return _Address(x) if isinstance(x, Tensor) else x


@functools.cache
def _backend(target: str) -> Any:
    return make_backend(GPUTarget('cuda', GPUS[target].capability, 32))


@functools.cache
def _binder(kernel: Any, target: str) -> Any:
    return create_function_from_signature(kernel.signature, kernel.params, _backend(target))


def compiled(program: Program) -> Figures:
    """Compile a program, or take it from Triton's cache, and read what ptxas says of it."""
    gpu = GPUS[program.target]
    target = GPUTarget('cuda', gpu.capability, 32)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the whole program if ptxas refuses it
            kernel = compile_source(program.source, target=target, options=program.options)
    except Exception as error:
        reason = ' '.join(str(error).split())[-300:]
        return Figures(faults=(f'does not compile: {type(error).__name__}: {reason}',))
    log = _ptxas(kernel, gpu)
    registers = _number(r'Used (\d+) registers', log)
    spills = _number(r'(\d+) bytes spill stores', log) + _number(r'(\d+) bytes spill loads', log)
    shared, warps = kernel.metadata.shared, kernel.metadata.num_warps
    products, faults = _products(kernel.asm)
    if spills:
        faults.append(f'{spills} bytes of registers spilled')
    if shared > gpu.most_shared:
        faults.append(f'{shared} bytes of shared memory, {gpu.most_shared} at most')
    resident = 0 if shared > gpu.most_shared else _resident(gpu, registers, shared, warps)
    return Figures(registers, spills, shared, warps, resident, products, tuple(faults))


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f'ptxas says nothing like {pattern!r}:\n{text}')
    return int(found.group(1))


def _ptxas(kernel: Any, gpu: GPU) -> str:
    """What ptxas prints about a kernel; kept beside it in Triton's cache."""
    cache = get_cache_manager(kernel.hash)
    path = cache.get_file(_LOG)
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            ptx = Path(folder, 'kernel.ptx')
            ptx.write_text(kernel.asm['ptx'])
            arch = f'sm_{gpu.capability}a' if gpu.capability >= 90 else f'sm_{gpu.capability}'
            command = [knobs.nvidia.ptxas.path, '-v', '--regAllocOptLevel=2', f'--gpu-name={arch}']
            command += [str(ptx), '-o', str(Path(folder, 'kernel.cubin'))]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        path = cache.put(text, _LOG, binary=False)
    return Path(path).read_text()


def _products(asm: dict[str, str]) -> tuple[tuple[str, ...], list[str]]:
    """Types of the products on tensor cores, and what is wrong with products."""
    wanted = re.findall(r'tt\.dot (.*): tensor<[0-9x]+x(\w+)>', asm['ttir'])
    half = [kind for _, kind in wanted if kind in _HALF]
    # products left to ordinary units have the layout of ordinary tensors
    plain = re.findall(r'tt\.dot .*-> tensor<[^>]*, #blocked\d*>', asm['ttgir'])
    found = re.findall(r'\b(?:wgmma\.mma_async|mma)\.sync[\w.]*?\.(bf16|f16|tf32)\b', asm['ptx'])
    single = {
        how.partition('inputPrecision = ')[2].strip() for how, kind in wanted if kind == 'f32'
    }
    if 'tf32x3' in single:  # three products for one, as accurate as float32
        found = ['tf32x3' if kind == 'tf32' else kind for kind in found] + ['tf32'] * (
            'tf32' in single
        )
    faults = []
    if half and (not set(half) <= set(found) or len(plain) > len(wanted) - len(half)):
        faults.append('products in half precision without tensor cores')
    return tuple(sorted(set(found))), faults


def _resident(gpu: GPU, registers: int, shared: int, warps: int) -> int:
    """Warps that a multiprocessor holds at a time."""
    per_warp = -(-registers * 32 // 256) * 256  # registers are given out in units of 256
    programs = min(
        gpu.programs,
        gpu.warps // warps,
        gpu.registers // per_warp // warps,
        gpu.shared // (-(-shared // 128) * 128 + _RESERVED),
    )
    return programs * warps
