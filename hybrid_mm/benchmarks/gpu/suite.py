"""All tasks in their order, and what is known about the machine."""

import importlib
import importlib.metadata
import importlib.util
import platform
import subprocess
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hybrid_mm.benchmarks.gpu.task import Options, Skipped, Task
from hybrid_mm.version import __version__

# group -> module with `tasks(options)`; those that miss a package leave a line in the report
GROUPS = {
    'operators': 'hybrid_mm.benchmarks.gpu.operators',
    'layers': 'hybrid_mm.benchmarks.gpu.layers',
    'networks': 'hybrid_mm.benchmarks.gpu.networks',
    'training': 'hybrid_mm.benchmarks.gpu.training',
    'timings': 'hybrid_mm.benchmarks.gpu.timings',
}
ENVIRONMENT = 'environment'
PACKAGES = (
    'triton',
    'numpy',
    'torchvision',
    'mmengine',
    'mmcv',
    'mmdet',
    'mmseg',
    'natten',
    'timm',
)


def tasks(options: Options) -> list[Task]:
    """All tasks, the most telling ones first."""
    found = [Task(ENVIRONMENT, partial(environment, options), 60.0, order=-1)]
    for group, module in GROUPS.items():
        try:
            make: Callable[[Options], Iterable[Task]] = importlib.import_module(module).tasks
            found += make(options)
        except Exception as error:  # a broken installation may raise anything
            reason = f'{type(error).__name__}: {error}'
            found.append(Task(f'{group}/all', partial(_missing, reason)))
    return sorted(found, key=lambda task: task.order)


def _missing(reason: str) -> tuple[str, dict[str, Any]]:
    raise Skipped(reason)


def environment(options: Options) -> tuple[str, dict[str, Any]]:
    """What the machine and its packages are, as text and figures."""
    found = dict(
        hybrid_mm=f'{__version__}{_commit()}',
        python=platform.python_version(),
        torch=torch.__version__,
    )
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found[name] = 'not installed' if spec is None else _version(name)
    if options.device == 'cuda':
        properties = torch.cuda.get_device_properties(0)
        found |= dict(
            gpu=properties.name,
            capability=f'{properties.major}.{properties.minor}',
            multiprocessors=str(properties.multi_processor_count),
            memory=f'{properties.total_memory / 2**30:.1f} GiB',
            driver=_driver(),
            cuda=str(torch.version.cuda or torch.version.hip),
            cudnn=str(torch.backends.cudnn.version()),
        )
    return '; '.join(f'{k} {v}' for k, v in found.items()), found


def _version(package: str) -> str:
    owners = importlib.metadata.packages_distributions().get(package)
    return importlib.metadata.version(owners[0]) if owners else 'of unknown version'


def _commit() -> str:
    root = Path(__file__).parents[3]
    if not (root / '.git').exists():
        return ''
    return _output('git', '-C', str(root), 'describe', '--always', '--dirty', before=' at ')


def _driver() -> str:
    return _output('nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader') or 'unknown'


def _output(*command: str, before: str = '') -> str:
    """First line that a program prints, or nothing if there is no such program."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ''
    return before + done.stdout.splitlines()[0].strip() if done.stdout.strip() else ''
