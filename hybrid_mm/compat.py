"""Workarounds for known breakages of the OpenMMLab stack, and a diagnosis of an environment.

The same modules (``mmengine``, ``mmcv``, ``mmdet``, ``mmseg``, ``mmpretrain``) come from two
providers, the original OpenMMLab releases and the OneDL builds, so everything here looks at modules
and at what their files say, never at distribution names alone. Breakages are numbered B1 to B16;
what needs no user is worked around by :func:`apply`, the rest is reported by :func:`diagnose`.

Only the standard library is imported at the top: this module has to work where torch does not.
"""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

MODULES = (
    'torch',
    'torchvision',
    'numpy',
    'cv2',
    'mmengine',
    'mmcv',
    'mmdet',
    'mmseg',
    'mmpretrain',
)
SETUP = 'bash tools/setup.sh'
TRUST = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'  # torch's own name for the wish to run a file's code


def apply() -> None:
    """Apply every workaround that needs no user; called by ``import hybrid_mm``.

    Imports neither mmcv nor mmdet nor mmseg, changes nothing where a breakage is absent, and never
    raises: in a broken environment the import that is really needed gives the better error.
    """
    for workaround in (b1_weights_only, b6_config_packages):
        try:
            workaround()
        except Exception as error:
            print(f'hybrid_mm: {workaround.__name__} not applied: {error}', file=sys.stderr)


# --- workarounds ----------------------------------------------------------------------------------


def b1_weights_only() -> bool:
    """B1: MMEngine 0.10.7 cannot read its own checkpoints with torch 2.6 or later.

    ``torch.load`` defaults to ``weights_only=True`` there, and a training checkpoint holds a
    ``HistoryBuffer`` and NumPy objects. OneDL's MMEngine reads them, but runs the code of a file
    that is not safe, with a warning. In both, loaders of local files and of URLs are registered
    that allow MMEngine's own objects and nothing else.

    https://github.com/open-mmlab/mmengine/issues/1655.
    Remove when MMEngine refuses unsafe files.

    Returns:
        Whether MMEngine is there.
    """
    if 'def register_scheme' not in _text('mmengine', 'runner/checkpoint.py'):
        return False
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(
        prefixes=('http://', 'https://'), loader=load_from_http, force=True
    )
    return True


def b6_config_packages() -> bool:
    """B6: ``_base_ = 'mmseg::...'`` is refused with OneDL's MMSegmentation, ours everywhere.

    MMEngine maps ``mmseg`` to the distribution ``mmsegmentation``, which OneDL's is not called, and
    does not know ``hybrid_mm`` at all. Both are added to its map in memory.

    https://mmengine.readthedocs.io/en/latest/advanced_tutorials/config.html#cross-project-inherit-and-import.
    Remove when MMEngine finds packages by module name.

    Returns:
        Whether the workaround was needed.
    """
    if _find('mmengine') is None:
        return False
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault('hybrid_mm', 'hybrid_mm')
    if not _has_b6():
        return False
    MODULE2PACKAGE['mmseg'] = 'mmseg'
    return True


def b16_plugins_in_turn() -> bool:
    """B16: of several plugins at one place, MMSegmentation's ResNet applies the last one only.

    Its ``forward_plugin`` gives every plugin the input of the first. Called by our plugins when a
    block of that ResNet builds them: by then its module is imported, and without plugins there is
    nothing to repair.

    No report was found upstream; MMDetection's copy of the method has it right.
    Remove when MMSegmentation's does.

    Returns:
        Whether the workaround was needed.
    """
    module = sys.modules.get('mmseg.models.backbones.resnet')
    if module is None or module.Bottleneck.forward_plugin.__module__ == __name__:
        return False
    if not _has_b16():
        return False

    def forward_plugin(self, x, plugin_names):
        for name in plugin_names:
            x = getattr(self, name)(x)
        return x

    module.Bottleneck.forward_plugin = forward_plugin
    return True


def _has_b16() -> bool:
    text = _text('mmseg', 'models/backbones/resnet.py')
    return 'out = getattr(self, name)(x)' in text


def _has_b1() -> bool:
    text = _text('mmengine', 'runner/checkpoint.py')
    return 'torch.load' in text and 'weights_only' not in text and _version('torch') >= (2, 6)


def _has_b6() -> bool:
    return _find('mmseg') is not None and not _installed('mmsegmentation')


def _history_method(owner: type, name: str):
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name.startswith('_'):
        raise RuntimeError(f'weights_only: GLOBAL getattr of {owner!r}, {name!r} is refused')
    return getattr(owner, name)


def load_from_local(filename: str, map_location=None) -> dict:
    """Load a local checkpoint; MMEngine's own classes are allowed, other code is not."""
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{filename} can not be found.')
    # NumPy 1.26 has an empty _core
    multiarray = (np._core if np.__version__ >= '2' else np.core).multiarray
    allowed = [HistoryBuffer, multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype]
    # A history pickles its methods as getattr(HistoryBuffer, 'mean'); any other use is refused.
    allowed.append((_history_method, 'builtins.getattr'))
    numbers = ('bool', 'int32', 'int64', 'uint32', 'float32', 'float64')
    allowed += [type(np.dtype(name)) for name in numbers]
    trusted = os.environ.get(TRUST, '').lower() in ('1', 'y', 'yes', 'true')
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location=map_location, weights_only=not trusted)
    except Exception as error:
        if 'weights_only' not in str(error).lower():
            raise
        culprit = re.search(r'GLOBAL (\S+)', str(error))
        raise RuntimeError(
            f'{filename} holds {culprit.group(1) if culprit else "objects"} that could run code '
            f'when loaded. If you trust the file, set {TRUST}=1.'
        ) from None


def load_from_http(filename: str, map_location=None, model_dir: str | None = None) -> dict:
    """Download a checkpoint once, into torch's cache by default, and load it as a local one.

    A name that ends in ``-HASH.pth`` is checked against the hash, as torch does.
    """
    from mmengine.dist import barrier, get_rank
    from torch import hub

    folder = Path(model_dir or os.path.join(hub.get_dir(), 'checkpoints'))
    path = folder / os.path.basename(filename.split('?')[0])
    for first in (True, False):  # the others find the file, or are on another machine
        if (get_rank() == 0) == first and not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            found = re.search(r'-([a-f0-9]{8,})\.', path.name)
            hub.download_url_to_file(filename, str(path), found and found[1])
        barrier()
    return load_from_local(str(path), map_location)


# --- diagnosis ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One observation about the environment.

    Attributes:
        level: 'error' (something will fail), 'warning' (something may), 'note' (a limit of the
            stack that this project has its own way around) or 'handled' (worked around on import).
        code: Number of the breakage, such as 'B8', or '' for a general problem.
        message: What is the matter.
        fix: What to run or to use instead.
    """

    level: str
    code: str
    message: str
    fix: str = ''

    def __str__(self) -> str:
        text = f'{self.level} {self.code}'.rstrip() + f': {self.message}'
        return f'{text}\n    fix: {self.fix}' if self.fix else text


def providers() -> dict[str, list[tuple[str, str]]]:
    """Distribution names and versions that provide each of :data:`MODULES`."""
    owners = metadata.packages_distributions()
    return {
        name: [(owner, metadata.version(owner)) for owner in sorted(set(owners.get(name, [])))]
        for name in MODULES
    }


def diagnose() -> list[Finding]:
    """Look for every known problem in the running environment, imports included.

    Returns:
        Findings, most serious first. The environment is usable if none is an 'error'.
    """
    found = providers()
    findings = [*_check_basics(found), *_check_imports(found), *_check_breakages(found)]
    order = ('error', 'warning', 'note', 'handled')
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _check_basics(found: dict) -> Iterator[Finding]:
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        yield Finding(
            'warning', '', f'Python {sys.version.split()[0]} is untested', 'use Python 3.10 to 3.12'
        )
    for name, owners in found.items():
        names = ' '.join(owner for owner, _ in owners)
        if not owners and _find(name) is None:
            # Detection works without mmseg and so on; without the others nothing does.
            level = 'error' if name in ('torch', 'numpy', 'cv2', 'mmengine', 'mmcv') else 'warning'
            yield Finding(level, '', f'{name} is not installed', SETUP)
        elif len(owners) > 1 and name != 'cv2':
            yield Finding(
                'error',
                '',
                f'{name} is provided by {len(owners)} distributions ({names}), which overwrite '
                "each other's files",
                f'pip uninstall -y {names} && {SETUP}',
            )


def _check_imports(found: dict) -> Iterator[Finding]:
    broken = None
    for name in MODULES:
        if not found[name] and _find(name) is None:
            continue
        error = _import_error(name)
        if error is None:
            if name == 'cv2' and len(found[name]) > 1:
                names = ' and '.join(owner for owner, _ in found[name])
                yield Finding('warning', 'B14', f'{names} own the same files', _one_cv2(found))
            continue
        owners = ' '.join(owner for owner, _ in found[name]) or name
        if name == 'cv2':
            headless = 'libGL' in error
            yield Finding('error', 'B14', f'import cv2 fails: {error}', _one_cv2(found, headless))
        elif broken is None:
            # What imports a broken package fails with it: only the first is the cause.
            broken = name
            yield Finding(
                'error',
                '',
                f'import {name} fails: {error}',
                f'pip uninstall -y {owners} && {SETUP}',
            )
    if broken is None and _find('mmcv') is not None:
        error = _import_error('mmcv._ext')
        if error is not None:
            owners = ' '.join(owner for owner, _ in found['mmcv']) or 'mmcv'
            yield Finding(
                'error',
                'B8',
                f'mmcv has no working operators: {error}',
                f'pip uninstall -y {owners} && {SETUP}',
            )
            if _version('torch') >= (2, 14):
                yield Finding(
                    'note',
                    'B15',
                    'headers of torch 2.14 and later need C++20, which mmcv does not ask for',
                    f'{SETUP} (builds it so)',
                )


def _check_breakages(found: dict) -> Iterator[Finding]:
    torch, mmengine = _version('torch'), _version('mmengine')
    original = {name for name, owners in found.items() for owner, _ in owners if owner == name}
    if _has_b1():
        yield Finding('handled', 'B1', 'mmengine cannot read its checkpoints with torch >= 2.6')
    if torch >= (2, 6):
        for name in ('mmdet', 'mmseg'):
            text = _text(name, '.mim/tools/model_converters/publish_model.py') or _text(
                name, '.mim/tools/misc/publish_model.py'
            )
            if 'torch.load(' in text and 'weights_only' not in text:
                yield Finding(
                    'note',
                    'B2',
                    f"{name}'s publish_model.py cannot read training checkpoints",
                    'python tools/publish_model.py',
                )
    if _find('mmengine') and mmengine < (0, 10, 6) and torch >= (2, 5) and _find('transformers'):
        yield Finding(
            'error',
            'B3',
            'mmengine < 0.10.6 clashes with the Adafactor of torch and transformers',
            'pip install "mmengine>=0.10.7"',
        )
    uses_pkg_resources = 'pkg_resources' in _text('mmengine', 'utils/package_utils.py')
    if uses_pkg_resources and not _find('pkg_resources'):
        yield Finding(
            'warning',
            'B4',
            "this mmengine needs pkg_resources for `_base_ = 'mmdet::...'`",
            'pip install "setuptools<82"',
        )
    for name in ('mmdet', 'mmseg'):
        init = _text(name, '__init__.py')
        limit = re.search(r"(?:mmcv_maximum_version|MMCV_MAX) = '([\d.]+)'", init)
        if limit and _find('mmcv') and _version('mmcv') >= _parse(limit.group(1)):
            yield Finding(
                'error',
                'B5',
                f'this {name} refuses mmcv {limit.group(1)} and later',
                'pip install --no-build-isolation "mmcv==2.1.0"',
            )
    if _has_b6():
        yield Finding('handled', 'B6', "`_base_ = 'mmseg::...'` does not find this mmseg")
    if _has_b16():
        yield Finding('handled', 'B16', 'several plugins at one place of a ResNet of this mmseg')
    if 'mmengine' in original and mmengine < (0, 11) and sys.version_info >= (3, 12):
        yield Finding(
            'note',
            'B7',
            'pure-Python configs that import os fail with this mmengine on Python 3.12',
            'classic text configs (all of ours are)',
        )
    numpy = _version('numpy')
    if _find('numpy') and numpy < (2,) and _installed('onedl-mmsegmentation'):
        yield Finding('error', 'B9', "OneDL's mmseg needs NumPy 2", 'pip install "numpy>2"')
    if numpy >= (2,) and 'mmcv' in original and _version('mmcv') < (2, 2):
        yield Finding('warning', 'B9', 'mmcv 2.1 was built for NumPy 1', 'pip install "numpy<2"')
    sampler = _text('mmengine', 'dataset/sampler.py')
    if sampler and 'def skip' not in sampler:
        yield Finding(
            'note',
            'B10',
            'resuming an iteration-based run reads all earlier batches again',
            'be patient, or use onedl-mmengine',
        )
    if 'torch.cuda.set_device(local_rank)' in _text('mmengine', 'dist/utils.py') and not _has_gpu():
        yield Finding(
            'note',
            'B11',
            "mmdet's and mmseg's own --launcher fails without a GPU",
            'tools/dist_train.sh or tools/train.py --launcher pytorch',
        )
    if 'torch.distributed.launch' in _text('mmdet', '.mim/tools/dist_train.sh'):
        yield Finding(
            'note',
            'B12',
            "mmdet's dist_train.sh uses the deprecated torch.distributed.launch",
            'tools/dist_train.sh (torchrun)',
        )
    det_tta = _text('mmdet', 'models/test_time_augs/det_tta.py')
    if 'TODO: support instance segmentation' in det_tta:
        yield Finding(
            'note',
            'B13',
            "mmdet's DetTTAModel merges boxes only, no instance masks",
            "tta_model.type = 'hybrid_mm.InstanceTTAModel'",
        )


def _one_cv2(found: dict, headless: bool = False) -> str:
    owners = dict(found['cv2'])
    keep = 'opencv-python-headless' if headless else 'opencv-python'
    version = owners.get(keep) or max(owners.values(), default='')
    pin = f'"{keep}=={version}"' if version else keep
    remove = f'pip uninstall -y {" ".join(owners)} && ' if owners else ''
    return f'{remove}pip install --no-deps {pin}'


# --- what the environment says --------------------------------------------------------------------


def _find(module: str) -> Path | None:
    """Folder of an importable top-level module, found without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _text(module: str, path: str) -> str:
    """A file of an installed package, or '' if there is none."""
    folder = _find(module)
    if folder is None or not (folder / path).is_file():
        return ''
    return (folder / path).read_text(encoding='utf-8', errors='replace')


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _parse(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: '2.14.1+cu130' is (2, 14, 1)."""
    return tuple(map(int, re.findall(r'\d+', re.match(r'[\d.]*', version).group())))


def _version(module: str) -> tuple[int, ...]:
    """Version of an installed module, () if it is unknown."""
    onedl = {'mmdet': 'onedl-mmdetection', 'mmseg': 'onedl-mmsegmentation'}
    original = {'mmseg': 'mmsegmentation'}
    for name in (original.get(module, module), onedl.get(module, f'onedl-{module}')):
        try:
            return _parse(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return ()


def _import_error(module: str) -> str | None:
    """First line of what importing a module raises, None if it works."""
    try:
        importlib.import_module(module)
    except Exception as error:
        lines = str(error).strip().splitlines() or ['']
        return f'{type(error).__name__}: {lines[0]}'
    return None


def _has_gpu() -> bool:
    torch = sys.modules.get('torch')
    cuda = getattr(torch, 'cuda', None)
    return cuda is not None and cuda.is_available()
