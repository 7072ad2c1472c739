"""tools/check_env.py in simulated environments: folders of fake packages, no site-packages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hybrid_mm.compat.installed import MODULES

ROOT = Path(__file__).resolve().parents[2]

# module: (distribution, version, files); the package's own __init__.py is '' unless given.
OPS = {'_ext.py': ''}
NOT_BROKEN = {
    'runner/checkpoint.py': 'torch.load(file, weights_only=True)',
    'config/utils.py': "MODULE2PACKAGE = {'mmseg': 'mmsegmentation'}",
    'config/__init__.py': '',
    'dataset/sampler.py': 'def skip(self): ...',
}
ONEDL = {
    'torch': ('torch', '2.14.1', {}),
    'torchvision': ('torchvision', '0.29.1', {}),
    'numpy': ('numpy', '2.2.6', {}),
    'cv2': ('opencv-python', '4.12.0.88', {}),
    'mmengine': ('onedl-mmengine', '0.10.12', NOT_BROKEN),
    'mmcv': ('onedl-mmcv', '2.3.6', OPS),
    'mmdet': ('onedl-mmdetection', '3.5.1', {}),
    'mmseg': ('onedl-mmsegmentation', '1.4.2', {}),
    'mmpretrain': ('onedl-mmpretrain', '1.3.6', {}),
}
ORIGINAL = {
    'torch': ('torch', '2.1.2', {}),
    'torchvision': ('torchvision', '0.16.2', {}),
    'numpy': ('numpy', '1.26.4', {}),
    'mmengine': ('mmengine', '0.10.7', NOT_BROKEN),
    'mmcv': ('mmcv', '2.1.0', OPS),
    'mmdet': ('mmdet', '3.3.0', {'__init__.py': "mmcv_maximum_version = '2.2.0'"}),
    'mmseg': ('mmsegmentation', '1.2.2', {'__init__.py': "MMCV_MAX = '2.2.0'"}),
    'mmpretrain': ('mmpretrain', '1.2.0', {}),
}
REFUSED = {
    'mmcv': "__version__ = '2.2.0'",
    'mmdet': """
import mmcv
mmcv_maximum_version = '2.2.0'
assert mmcv.__version__ < mmcv_maximum_version, 'MMCV is used but incompatible'
""",
}
LOADS_UNSAFE = """
class CheckpointLoader:
    def register_scheme(prefixes, loader, force): ...

def load_from_local(filename):
    return torch.load(filename)
"""
PUBLISH = '.mim/tools/model_converters/publish_model.py'

# name: (packages that differ from ONEDL, exit status, what the report says, what it does not say)
CASES = {
    'sound': ({}, 0, ['onedl-mmsegmentation', '0 errors, 0 warnings', 'handled B6'], ['fix:']),
    'nothing': (
        dict.fromkeys(ONEDL),
        1,
        [
            'error: not installed: torch, numpy, cv2, mmengine\n    fix: bash tools/setup.sh',
            'warning: not installed: torchvision, mmcv, mmdet, mmseg, mmpretrain',
            'not usable   backbones, detectors, segmenters, classifiers',
        ],
        ['B5'],
    ),
    'no mmseg': (
        {'mmseg': None},
        0,
        ['warning: not installed: mmseg\n', 'usable       backbones, detectors, classifiers'],
        ['error:', 'B6'],
    ),
    'backbones only': (
        dict.fromkeys(('mmcv', 'mmdet', 'mmseg', 'mmpretrain')),
        0,
        ['warning: not installed: mmcv, mmdet, mmseg, mmpretrain', 'usable       backbones\n'],
        [],
    ),
    'no mmcv': (
        {**ORIGINAL, 'mmcv': None, 'mmseg': None},
        1,
        [
            'error: mmcv is not installed, and mmdet, mmpretrain need it',
            'fix: pip install mmcv==2.1.0 -f https://download.openmmlab.com/mmcv/dist/cpu/torch2.1/'
            if sys.version_info < (3, 12)
            else '--no-build-isolation mmcv==2.1.0',
            'warning: not installed: mmseg\n    fix: pip install mmsegmentation==1.2.2\n',
        ],
        ['setup.sh'],
    ),
    'original releases': (
        ORIGINAL,
        0,
        [
            '0 errors, 0 warnings',
            'note: not with this torch: torch.compile and torch.export of our networks, ONNX files',
        ],
        ['fix: pip'],
    ),
    'original releases, NumPy 2': (
        {**ORIGINAL, 'numpy': ('numpy', '2.2.6', {})},
        1,
        ['error B9: this torch was built for NumPy 1', 'pip install "numpy<2"'],
        [],
    ),
    'original releases, NumPy 2, later torch': (
        {
            **ORIGINAL,
            'numpy': ('numpy', '2.2.6', {}),
            'torch': ('torch', '2.4.1', {}),
        },
        0,
        ['note: not with this torch: ONNX files\n'],
        ['B9', 'compile'],
    ),
    'mmcv-lite': (
        {**ORIGINAL, 'mmcv': ('mmcv-lite', '2.1.0', {})},
        1,
        [
            'error B8: mmcv-lite has no working operators, and mmdet and mmseg need them\n',
            'fix: pip uninstall -y mmcv-lite && pip install',
            'not usable   detectors, segmenters\n',
        ],
        ['setup.sh', 'B5'],
    ),
    'mmcv-lite for classifiers': (
        {**ORIGINAL, 'mmcv': ('mmcv-lite', '2.2.0', {}), 'mmdet': None, 'mmseg': None},
        0,
        ['warning B8: mmcv-lite', 'usable       backbones, classifiers\n'],
        [],
    ),
    'both providers': (
        {'mmengine': ('mmengine', '0.10.7', NOT_BROKEN)},
        0,
        [
            'warning: mmengine are original releases, onedl-mmcv, onedl-mmdetection, ',
            'fix: pip uninstall -y mmengine && bash tools/setup.sh\n',
        ],
        [],
    ),
    'torchvision of another torch': (
        {
            'torch': ('torch', '2.4.1', {}),
            'torchvision': ('torchvision', '0.29.1', {'__init__.py': 'raise RuntimeError("nms")'}),
        },
        1,
        [
            'error: import torchvision fails: RuntimeError: nms',
            'fix: pip install "torchvision==0.19.*"',
        ],
        [],
    ),
    'broken torch': (
        {
            'torch': ('torch', '2.14.1', {'__init__.py': 'raise OSError("libcudart.so.13")'}),
            'torchvision': ('torchvision', '0.29.1', {'__init__.py': 'import torch'}),
        },
        1,
        ['error: import torch fails: OSError: libcudart.so.13', 'pip uninstall -y torch &&'],
        ['import torchvision fails', 'Traceback', 'B8'],
    ),
    'B1': (
        {
            'mmengine': (
                'mmengine',
                '0.10.7',
                {**NOT_BROKEN, 'runner/checkpoint.py': LOADS_UNSAFE},
            )
        },
        0,
        ['handled B1'],
        [],
    ),
    'B2': (
        {
            'mmdet': (
                'onedl-mmdetection',
                '3.5.1',
                {PUBLISH: "torch.load(in_file, map_location='cpu')"},
            )
        },
        0,
        ["note B2: mmdet's publish_model.py", 'fix: python tools/publish_model.py'],
        ["mmseg's publish_model.py"],
    ),
    'B3': (
        {
            'mmengine': ('mmengine', '0.10.5', NOT_BROKEN),
            'transformers': ('transformers', '4.53', {}),
        },
        1,
        ['error B3', 'pip install "mmengine>=0.10.7"'],
        [],
    ),
    'no B3 without transformers': (
        {'mmengine': ('mmengine', '0.10.5', NOT_BROKEN)},
        0,
        [],
        ['B3'],
    ),
    'B4': (
        {
            'mmengine': (
                'mmengine',
                '0.10.7',
                {**NOT_BROKEN, 'utils/package_utils.py': 'from pkg_resources import x'},
            )
        },
        0,
        ['warning B4', 'pip install "setuptools<82"'],
        [],
    ),
    'B5': (
        {name: ORIGINAL[name] for name in ('mmdet', 'mmseg')},
        1,
        [
            'error B5: mmdet and mmseg refuse mmcv 2.3.6',
            'fix: pip uninstall -y mmdet mmsegmentation && bash tools/setup.sh\n',
        ],
        ['B6'],
    ),
    'B5 with other original releases': (
        {name: ORIGINAL[name] for name in ('mmdet', 'mmpretrain')},
        1,
        ['fix: pip uninstall -y mmdet && pip install onedl-mmdetection\n'],
        [],
    ),
    'B5 of mmcv 2.2': (
        {
            **ORIGINAL,
            'mmcv': ('mmcv', '2.2.0', {**OPS, '__init__.py': REFUSED['mmcv']}),
            'mmdet': ('mmdet', '3.3.0', {'__init__.py': REFUSED['mmdet']}),
        },
        0,
        [
            'note B5: mmdet and mmseg refuse mmcv 2.2.0 unless hybrid_mm is imported first',
            'fix: `python -m hybrid_mm run ',
            'usable       backbones, detectors, segmenters, classifiers\n',
        ],
        [],
    ),
    'B5 of a later mmcv': (
        {
            **ORIGINAL,
            'mmcv': ('mmcv', '2.3.0', {**OPS, '__init__.py': '__version__ = "2.3.0"'}),
            'mmdet': ('mmdet', '3.3.0', {'__init__.py': REFUSED['mmdet']}),
        },
        1,
        ['error B5: mmdet and mmseg refuse mmcv 2.3.0', 'mmcv==2.1.0', 'not usable   detectors\n'],
        ['fails', 'hybrid_mm run'],
    ),
    'B8 and B15': (
        {'mmcv': ('onedl-mmcv', '2.3.6', {})},
        1,
        ['error B8', "No module named 'mmcv._ext'", 'pip uninstall -y onedl-mmcv &&', 'note B15'],
        [],
    ),
    'B8 with an older torch': (
        {'mmcv': ('onedl-mmcv', '2.3.6', {}), 'torch': ('torch', '2.10.0', {})},
        1,
        ['error B8'],
        ['B15'],
    ),
    'B9': ({'numpy': ('numpy', '1.26.4', {})}, 1, ['error B9', 'pip install "numpy>2"'], []),
    'B10': (
        {'mmengine': ('mmengine', '0.10.7', {**NOT_BROKEN, 'dataset/sampler.py': 'class S: ...'})},
        0,
        ['note B10'],
        [],
    ),
    'B11': (
        {
            'mmengine': (
                'onedl-mmengine',
                '0.10.12',
                {**NOT_BROKEN, 'dist/utils.py': 'torch.cuda.set_device(local_rank)'},
            )
        },
        0,
        ['note B11', '--launcher pytorch'],
        [],
    ),
    'B12 and B13': (
        {
            'mmdet': (
                'onedl-mmdetection',
                '3.5.1',
                {
                    '.mim/tools/dist_train.sh': 'python -m torch.distributed.launch',
                    'models/test_time_augs/det_tta.py': '# TODO: support instance segmentation TTA',
                },
            )
        },
        0,
        ['note B12', 'note B13'],
        [],
    ),
    'B14 without libGL': (
        {
            'cv2': (
                'opencv-python',
                '4.12.0.88',
                {'__init__.py': 'raise ImportError("libGL.so.1: no")'},
            )
        },
        1,
        ['error B14', 'pip install --no-deps "opencv-python-headless==4.12.0.88"'],
        [],
    ),
}


def make_package(site, module, distribution, version, files):
    files = {'__init__.py': '', **files}
    for name, text in files.items():
        path = site / module / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    make_metadata(site, module, distribution, version)


def make_metadata(site, module, distribution, version):
    info = site / f'{distribution.replace("-", "_")}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n'
    )
    (info / 'top_level.txt').write_text(module)
    (info / 'RECORD').write_text(f'{module}/__init__.py,,\n')


def check_env(*site):
    code = (
        'import runpy, sys\n'
        f'sys.path[:0] = {[str(path) for path in site]}\n'
        'sys.argv = ["check_env.py"]\n'
        f'runpy.run_path({str(ROOT / "tools/check_env.py")!r}, run_name="__main__")'
    )
    command = [sys.executable, '-I', '-S', '-c', code]  # nothing but the standard library
    return subprocess.run(command, capture_output=True, text=True)


def test_there_is_a_package_for_each_module():
    assert tuple(ONEDL) == MODULES


@pytest.mark.parametrize('name', CASES)
def test_simulated(tmp_path, name):
    changes, status, said, unsaid = CASES[name]
    for module, package in {**ONEDL, **changes}.items():
        if package is not None:
            make_package(tmp_path, module, *package)
    run = check_env(tmp_path)
    assert run.returncode == status, run.stdout + run.stderr
    for text in said:
        assert text in run.stdout
    for text in unsaid:
        assert text not in run.stdout
    levels = re.findall('^(error|warning|note|handled)', run.stdout, re.MULTILINE)
    assert levels == sorted(levels, key=('error', 'warning', 'note', 'handled').index)
    assert run.stderr == '' or name == 'broken torch'


def test_two_providers_are_fatal_and_the_fix_names_both(tmp_path):
    for module, package in ONEDL.items():
        make_package(tmp_path, module, *package)
    make_metadata(tmp_path, 'mmcv', 'mmcv', '2.1.0')
    make_metadata(tmp_path, 'cv2', 'opencv-python-headless', '4.12.0.88')
    run = check_env(tmp_path)
    assert run.returncode == 1
    assert 'error: mmcv is provided by 2 distributions (mmcv onedl-mmcv)' in run.stdout
    assert 'fix: pip uninstall -y mmcv onedl-mmcv && bash tools/setup.sh' in run.stdout
    assert 'warning B14: opencv-python and opencv-python-headless own the same files' in run.stdout


def test_this_environment_has_no_error():
    command = [sys.executable, ROOT / 'tools/check_env.py']
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert ' 0 errors' in run.stdout.replace('\n', ' ')
