"""Diagnosis of an environment: every known problem of the stack, and its fix."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from hybrid_mm.compat.category_order import has_b17
from hybrid_mm.compat.installed import (
    MODULES,
    find,
    has_gpu,
    import_error,
    is_installed,
    parse_version,
    providers,
    read_text,
    version_of,
)
from hybrid_mm.compat.workarounds import has_b1, has_b6, has_b16, takes_b5

__all__ = ['Finding', 'diagnose', 'usable']

SETUP = 'bash tools/setup.sh'
ORIGINAL = {
    'mmengine': 'mmengine==0.10.7',
    'mmcv': 'mmcv==2.1.0',
    'mmdet': 'mmdet==3.3.0',
    'mmseg': 'mmsegmentation==1.2.2',
    'mmpretrain': 'mmpretrain==1.2.0',
}
"""The last original releases."""
OTHER = {'cv2': '"opencv-python<4.12"', 'numpy': '"numpy<2"'}
"""What pip installs for modules of other names, beside the original releases."""


@dataclass(frozen=True)
class Finding:
    """One observation about the environment.

    Attributes:
        level: 'error' (something will fail), 'warning' (something may), 'note' (a limit of the
            stack for which this project has an alternative) or 'handled' (worked around on import).
        code: Number of the breakage, such as 'B8', or '' for a general problem.
        message: The problem.
        fix: Command to run, or what to use instead.
    """

    level: str
    code: str
    message: str
    fix: str = ''

    def __str__(self) -> str:
        text = f'{self.level} {self.code}'.rstrip() + f': {self.message}'
        return f'{text}\n    fix: {self.fix}' if self.fix else text


def diagnose() -> list[Finding]:
    """Check the running environment for every known problem, including imports.

    Returns:
        Findings, the most serious first. The environment is usable if none is an 'error'.
    """
    found = providers()
    findings = [*_check_basics(found), *_check_imports(found), *_check_breakages(found)]
    order = ('error', 'warning', 'note', 'handled')
    return sorted(findings, key=lambda finding: order.index(finding.level))


def usable() -> dict[str, bool]:
    """What can be used here: backbones, and models of MMDetection, MMSegmentation, MMPretrain."""
    there = {name: find(name) is not None and import_error(name) is None for name in MODULES}
    backbones = there['torch'] and there['numpy'] and there['mmengine']
    operators = backbones and there['mmcv'] and import_error('mmcv._ext') is None
    return {
        'backbones': backbones,
        'detectors': operators and there['mmdet'],
        'segmenters': operators and there['mmseg'],
        'classifiers': backbones and there['mmcv'] and there['mmpretrain'],
    }


def _check_basics(found: dict) -> Iterator[Finding]:
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        yield Finding(
            'warning', '', f'Python {sys.version.split()[0]} is untested', 'use Python 3.10 to 3.13'
        )
    missing = [name for name in MODULES if not found[name] and find(name) is None]
    needed = [name for name in missing if name in ('torch', 'numpy', 'cv2', 'mmengine')]
    if needed:
        yield Finding('error', '', f'not installed: {", ".join(needed)}', _install(needed, found))
    optional = [name for name in missing if name not in needed]
    models = [name for name in ('mmdet', 'mmseg', 'mmpretrain') if name not in missing]
    if 'mmcv' in missing and models:
        yield Finding(
            'error',
            '',
            f'mmcv is not installed, and {", ".join(models)} need it',
            _install(['mmcv'], found),
        )
        optional.remove('mmcv')
    if optional:
        yield Finding(
            'warning', '', f'not installed: {", ".join(optional)}', _install(optional, found)
        )
    for name, owners in found.items():
        names = ' '.join(owner for owner, _ in owners)
        if len(owners) > 1 and name != 'cv2':
            yield Finding(
                'error',
                '',
                f'{name} is provided by {len(owners)} distributions ({names}), which overwrite '
                "each other's files",
                f'pip uninstall -y {names} && {_install([name], found)}',
            )
    original, onedl = _of_provider(found, 'original'), _of_provider(found, 'onedl')
    if original and onedl and not original.keys() & onedl.keys():
        few = min(original, onedl, key=len)
        other = 'onedl' if few is original else 'original'
        yield Finding(
            'warning',
            '',
            f'{", ".join(original.values())} are original releases, {", ".join(onedl.values())} '
            'are of OneDL: they are not tested together',
            f'pip uninstall -y {" ".join(few.values())} && {_install(list(few), found, other)}',
        )


def _of_provider(found: dict, provider: str) -> dict[str, str]:
    """Modules of OpenMMLab that are installed from a provider, and their distributions."""
    return {
        name: owner
        for name, owners in found.items()
        if name in ORIGINAL
        for owner, _ in owners
        if owner.startswith('onedl-') == (provider == 'onedl')
    }


def _install(names: list[str], found: dict, provider: str = '') -> str:
    """Command that installs modules from the provider of those that are there."""
    rest = _of_provider(found, 'original').keys() - set(names)
    if not rest and provider != 'original':
        return SETUP
    if provider == 'onedl':  # set-up refuses an environment with original releases
        pinned = [f'onedl-{ORIGINAL[name].split("==")[0]}' for name in names]
        return f'pip install {" ".join(pinned).replace("onedl-mmdet", "onedl-mmdetection")}'
    pinned = [ORIGINAL.get(name, OTHER.get(name, name)) for name in names if name != 'mmcv']
    commands = [_mmcv_command()] if 'mmcv' in names else []
    if pinned:
        commands.append(f'pip install {" ".join(pinned)}')
    return ' && '.join(commands)


def _mmcv_command() -> str:
    """Command that installs the original mmcv, with operators, for the torch that is there."""
    torch = version_of('torch')[:2]
    version = '2.1.0' if torch < (2, 2) else '2.2.0'
    if (2, 0) <= torch <= (2, 4) and sys.version_info < (3, 12):
        cuda = getattr(getattr(sys.modules.get('torch'), 'version', None), 'cuda', None)
        build = f'cu{cuda.replace(".", "")}' if cuda else 'cpu'
        page = f'https://download.openmmlab.com/mmcv/dist/{build}/torch{torch[0]}.{torch[1]}'
        return f'pip install mmcv=={version} -f {page}/index.html'
    return (
        'pip install "setuptools<82" wheel ninja psutil && '
        f'pip install --no-build-isolation mmcv=={version}'
    )


def _check_imports(found: dict) -> Iterator[Finding]:
    broken = None
    torch = version_of('torch')
    for name in MODULES:
        if not found[name] and find(name) is None:
            continue
        error = import_error(name)
        if error is None:
            if name == 'cv2' and len(found[name]) > 1:
                names = ' and '.join(owner for owner, _ in found[name])
                yield Finding('warning', 'B14', f'{names} own the same files', _one_cv2(found))
            continue
        owners = ' '.join(owner for owner, _ in found[name]) or name
        if name == 'cv2':
            headless = 'libGL' in error
            yield Finding('error', 'B14', f'import cv2 fails: {error}', _one_cv2(found, headless))
        elif name == 'torchvision' and broken is None and torch[:1] == (2,):
            # its releases follow those of torch: 0.16 for 2.1, 0.29 for 2.14
            yield Finding(
                'error',
                '',
                f'import torchvision fails: {error}',
                f'pip install "torchvision==0.{torch[1] + 15}.*"',
            )
        elif name in ('mmdet', 'mmseg') and 'is used but incompatible' in error:
            continue  # B5
        elif broken is None:
            # packages that import a broken one fail too: only the first failure is the cause
            broken = name
            yield Finding(
                'error',
                '',
                f'import {name} fails: {error}',
                f'pip uninstall -y {owners} && {_install([name], found)}',
            )
    if broken is None and find('mmcv') is not None:
        error = import_error('mmcv._ext')
        if error is not None:
            owners = ' '.join(owner for owner, _ in found['mmcv']) or 'mmcv'
            need = [name for name in ('mmdet', 'mmseg') if find(name) is not None]
            who = (
                f'{" and ".join(need)} need them' if need else 'detectors and segmenters need them'
            )
            said = '' if 'mmcv-lite' in owners else f': {error}'
            yield Finding(
                'error' if need or said else 'warning',
                'B8',
                f'{owners} has no working operators, and {who}{said}',
                f'pip uninstall -y {owners} && {_install(["mmcv"], found)}',
            )
            if torch >= (2, 14):
                yield Finding(
                    'note',
                    'B15',
                    'headers of torch 2.14 and later need C++20, which mmcv does not ask for',
                    f'{SETUP} (builds it so)',
                )


def _check_breakages(found: dict) -> Iterator[Finding]:
    torch, mmengine = version_of('torch'), version_of('mmengine')
    original = {name for name, owners in found.items() for owner, _ in owners if owner == name}
    if has_b1():
        yield Finding('handled', 'B1', 'mmengine cannot read its checkpoints with torch >= 2.6')
    if torch >= (2, 6):
        for name in ('mmdet', 'mmseg'):
            text = read_text(name, '.mim/tools/model_converters/publish_model.py') or read_text(
                name, '.mim/tools/misc/publish_model.py'
            )
            if 'torch.load(' in text and 'weights_only' not in text:
                yield Finding(
                    'note',
                    'B2',
                    f"{name}'s publish_model.py cannot read training checkpoints",
                    'python tools/publish_model.py',
                )
    if find('mmengine') and mmengine < (0, 10, 6) and torch >= (2, 5) and find('transformers'):
        yield Finding(
            'error',
            'B3',
            'mmengine < 0.10.6 clashes with the Adafactor of torch and transformers',
            'pip install "mmengine>=0.10.7"',
        )
    users = {
        "mmengine (for `_base_ = 'mmdet::...'`)": ('mmengine', 'utils/package_utils.py'),
        'mim': ('mim', 'commands/list.py'),
    }
    users = [user for user, file in users.items() if 'pkg_resources' in read_text(*file)]
    if users and not find('pkg_resources'):
        yield Finding(
            'warning',
            'B4',
            f'pkg_resources is missing, which this {" and ".join(users)} needs: it went with '
            'setuptools 82',
            'pip install "setuptools<82"',
        )
    yield from _check_b5(found)
    if has_b6():
        yield Finding('handled', 'B6', "`_base_ = 'mmseg::...'` does not find this mmseg")
    if has_b16():
        yield Finding('handled', 'B16', 'several plugins at one place of a ResNet of this mmseg')
    if has_b17():
        yield Finding('handled', 'B17', 'this mmdet numbers labels by the file, not by `classes`')
    if 'mmengine' in original and mmengine < (0, 11) and sys.version_info >= (3, 12):
        yield Finding(
            'note',
            'B7',
            'pure-Python configs that import os fail with this mmengine on Python 3.12',
            'classic text configs (all of ours are)',
        )
    numpy = version_of('numpy')
    if find('numpy') and numpy < (2,) and is_installed('onedl-mmsegmentation'):
        yield Finding('error', 'B9', "OneDL's mmseg needs NumPy 2", 'pip install "numpy>2"')
    if numpy >= (2,) and torch and torch < (2, 3):
        yield Finding(
            'error',
            'B9',
            'this torch was built for NumPy 1: tensors cannot be made from arrays',
            'pip install "numpy<2"',
        )
    sampler = read_text('mmengine', 'dataset/sampler.py')
    if sampler and 'def skip' not in sampler:
        yield Finding(
            'note',
            'B10',
            'its own tools read all earlier batches again when they resume iteration-based runs',
            'tools/train.py --resume, which skips them',
        )
    if (
        'torch.cuda.set_device(local_rank)' in read_text('mmengine', 'dist/utils.py')
        and not has_gpu()
    ):
        yield Finding(
            'note',
            'B11',
            "mmdet's and mmseg's own --launcher fails without a GPU",
            'tools/dist_train.sh or tools/train.py --launcher pytorch',
        )
    if 'torch.distributed.launch' in read_text('mmdet', '.mim/tools/dist_train.sh'):
        yield Finding(
            'note',
            'B12',
            "mmdet's dist_train.sh uses the deprecated torch.distributed.launch",
            'tools/dist_train.sh (torchrun)',
        )
    if torch and torch < (2, 6):
        lacks = [] if torch >= (2, 4) else ['torch.compile and torch.export of our networks']
        lacks += ['ONNX files', *(['kernels in Triton'] if has_gpu() else [])]
        yield Finding(
            'note',
            '',
            f'not with this torch: {", ".join(lacks)}',
            'torch 2.6; see "What older releases cannot do" in docs/installation.md',
        )
    elif has_gpu() and find('triton') is None:
        yield Finding(
            'note', '', 'Triton is missing: attention is slower on this GPU', 'pip install triton'
        )
    det_tta = read_text('mmdet', 'models/test_time_augs/det_tta.py')
    if 'TODO: support instance segmentation' in det_tta:
        yield Finding(
            'note',
            'B13',
            "mmdet's DetTTAModel merges boxes only, no instance masks",
            "tta_model.type = 'hybrid_mm.InstanceTTAModel'",
        )


def _check_b5(found: dict) -> Iterator[Finding]:
    mmcv = version_of('mmcv')
    refuse = []
    for name in ('mmdet', 'mmseg'):
        init = read_text(name, '__init__.py')
        limit = re.search(r"(?:mmcv_maximum_version|MMCV_MAX) = '([\d.]+)'", init)
        if limit and mmcv and mmcv >= parse_version(limit.group(1)):
            refuse.append(name)
    if not refuse:
        return
    version = '.'.join(map(str, mmcv))
    if takes_b5(mmcv):
        yield Finding(
            'note',
            'B5',
            f'{" and ".join(refuse)} refuse mmcv {version} unless hybrid_mm is imported first, as '
            'our tools do',
            '`python -m hybrid_mm run python train.py ...` for their own tools',
        )
        return
    original = _of_provider(found, 'original')
    owners = ' '.join(original[name] for name in refuse if name in original)
    if 'mmcv' in _of_provider(found, 'onedl'):
        fix = f'pip uninstall -y {owners} && {_install(refuse, found, "onedl")}'
    else:
        fix = _install(['mmcv'], found)
    yield Finding('error', 'B5', f'{" and ".join(refuse)} refuse mmcv {version}', fix)


def _one_cv2(found: dict, headless: bool = False) -> str:
    owners = dict(found['cv2'])
    keep = 'opencv-python-headless' if headless else 'opencv-python'
    version = owners.get(keep) or max(owners.values(), default='')
    pin = f'"{keep}=={version}"' if version else keep
    remove = f'pip uninstall -y {" ".join(owners)} && ' if owners else ''
    return f'{remove}pip install --no-deps {pin}'
