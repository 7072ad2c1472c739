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
from hybrid_mm.compat.workarounds import has_b1, has_b6, has_b16

__all__ = ['Finding', 'diagnose']

SETUP = 'bash tools/setup.sh'


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


def _check_basics(found: dict) -> Iterator[Finding]:
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        yield Finding(
            'warning', '', f'Python {sys.version.split()[0]} is untested', 'use Python 3.10 to 3.12'
        )
    for name, owners in found.items():
        names = ' '.join(owner for owner, _ in owners)
        if not owners and find(name) is None:
            # mmdet, mmseg and mmpretrain are optional; the others are not
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
        elif broken is None:
            # packages that import a broken one fail too: only the first failure is the cause
            broken = name
            yield Finding(
                'error',
                '',
                f'import {name} fails: {error}',
                f'pip uninstall -y {owners} && {SETUP}',
            )
    if broken is None and find('mmcv') is not None:
        error = import_error('mmcv._ext')
        if error is not None:
            owners = ' '.join(owner for owner, _ in found['mmcv']) or 'mmcv'
            yield Finding(
                'error',
                'B8',
                f'mmcv has no working operators: {error}',
                f'pip uninstall -y {owners} && {SETUP}',
            )
            if version_of('torch') >= (2, 14):
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
    uses_pkg_resources = 'pkg_resources' in read_text('mmengine', 'utils/package_utils.py')
    if uses_pkg_resources and not find('pkg_resources'):
        yield Finding(
            'warning',
            'B4',
            "this mmengine needs pkg_resources for `_base_ = 'mmdet::...'`",
            'pip install "setuptools<82"',
        )
    for name in ('mmdet', 'mmseg'):
        init = read_text(name, '__init__.py')
        limit = re.search(r"(?:mmcv_maximum_version|MMCV_MAX) = '([\d.]+)'", init)
        if limit and find('mmcv') and version_of('mmcv') >= parse_version(limit.group(1)):
            yield Finding(
                'error',
                'B5',
                f'this {name} refuses mmcv {limit.group(1)} and later',
                'pip install --no-build-isolation "mmcv==2.1.0"',
            )
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
    if numpy >= (2,) and 'mmcv' in original and version_of('mmcv') < (2, 2):
        yield Finding('warning', 'B9', 'mmcv 2.1 was built for NumPy 1', 'pip install "numpy<2"')
    sampler = read_text('mmengine', 'dataset/sampler.py')
    if sampler and 'def skip' not in sampler:
        yield Finding(
            'note',
            'B10',
            'resuming an iteration-based run reads all earlier batches again',
            'be patient, or use onedl-mmengine',
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
    det_tta = read_text('mmdet', 'models/test_time_augs/det_tta.py')
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
