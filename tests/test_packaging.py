"""The packages, and our backbones in plain configs of MMDetection, MMSegmentation and MMPretrain.

The latter run in subprocesses outside the checkout, with the unpacked wheel first on the path,
under `python -m hybrid_mm run` where the packages refuse this mmcv (B5). The commands of a test are
forks of one of them, which has imported OpenMMLab: most of their time.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from PIL import Image

from hybrid_mm.compat.installed import find, version_of
from hybrid_mm.compat.workarounds import takes_b5

ROOT = Path(__file__).resolve().parents[1]
SIZE = 64
needs_operators = pytest.mark.skipif(
    find('mmcv') is None or not list(find('mmcv').glob('_ext*')), reason='needs mmcv with operators'
)
RUN = ['-m', 'hybrid_mm', 'run', 'python'] if takes_b5(version_of('mmcv')) else []

# As a user of MMDetection writes it: no custom_imports, no word about hybrid_mm but the type.
DETECTION = """
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(_delete_=True, type='hybrid_mm.VAN', arch='b0'),
    neck=dict(in_channels=[32, 64, 160, 256]),
    roi_head=dict(bbox_head=dict(num_classes=2, fc_out_channels=64),
                  mask_head=dict(num_classes=2, num_convs=1)),
    # few regions: the time of this test
    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=20),
                   rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(max_per_img=5)))
"""
DETECTION_DATA = """
metainfo = dict(classes=('square', 'bar'))
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
data = dict(type='CocoDataset', data_root='{root}/', ann_file='coco.json',
            data_prefix=dict(img='images/'), metainfo=metainfo)
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, dataset=dict(**data, pipeline=pipeline, _delete_=True))
val_dataloader = dict(**loader, dataset=dict(**data, pipeline=test_pipeline, test_mode=True,
                                             _delete_=True))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{root}/coco.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
"""
SEGMENTATION = """
_base_ = ['{configs}/_base_/models/fpn_r50.py', '{configs}/_base_/default_runtime.py',
          '{configs}/_base_/schedules/schedule_20k.py']
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(_delete_=True, type='hybrid_mm.VAN', arch='b0'),
    neck=dict(in_channels=[32, 64, 160, 256]),
    decode_head=dict(num_classes=3, norm_cfg=dict(type='BN')))
"""
SEGMENTATION_DATA = """
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='Resize', scale=(64, 64)), dict(type='PackSegInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)),
                 dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
data = dict(type='BaseSegDataset', data_root='{root}', img_suffix='.png', seg_map_suffix='.png',
            data_prefix=dict(img_path='images', seg_map_path='maps'),
            metainfo=dict(classes=('ground', 'square', 'bar'),
                          palette=[[0, 0, 0], [255, 0, 0], [0, 0, 255]]))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        sampler=dict(type='InfiniteSampler', shuffle=True),
                        dataset=dict(**data, pipeline=pipeline))
val_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False,
                      sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(**data, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
train_cfg = dict(max_iters=2, val_interval=2)
"""
CLASSIFICATION = """
_base_ = '{configs}/_base_/default_runtime.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='hybrid_mm.VAN', arch='b0', out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=256, topk=(1,),
              loss=dict(type='CrossEntropyLoss')))
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                         to_rgb=True, num_classes=2)
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=64),
            dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='{root}', with_label=True, pipeline=pipeline))
val_dataloader = test_dataloader = train_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
val_cfg = test_cfg = dict()
"""
DETECT = """
import sys
from mmdet.apis import DetInferencer

config, weights, image = sys.argv[1:]
inferencer = DetInferencer(config, weights, device='cpu', show_progress=False)
assert type(inferencer.model.backbone).__module__ == 'hybrid_mm.backbones.van'
result = inferencer(image, pred_score_thr=0.0)['predictions'][0]
assert len(result['bboxes']) == len(result['scores']) == len(result['masks']), result.keys()
import hybrid_mm
print('FROM', hybrid_mm.__file__)
"""
SEGMENT = """
import sys
from mmseg.apis import MMSegInferencer

config, weights, image = sys.argv[1:]
inferencer = MMSegInferencer(config, weights, device='cpu')
assert type(inferencer.model.backbone).__module__ == 'hybrid_mm.backbones.van'
assert inferencer(image)['predictions'].shape == (64, 64)
import hybrid_mm
print('FROM', hybrid_mm.__file__)
"""
CLASSIFY = """
import sys
from mmpretrain import ImageClassificationInferencer, get_model

config, weights, image = sys.argv[1:]
model = get_model(config, weights, device='cpu')
assert type(model.backbone).__module__ == 'hybrid_mm.backbones.van'
result = ImageClassificationInferencer(model)(image)[0]
assert len(result['pred_scores']) == 2, result
import hybrid_mm
print('FROM', hybrid_mm.__file__)
"""
FORKS = """
import importlib, json, os, runpy, sys, traceback

package, *commands = map(json.loads, sys.argv[1:])
for name in ('torch', 'mmengine.runner', f'{package}.models', f'{package}.datasets',
             f'{package}.apis'):
    importlib.import_module(name)
assert 'hybrid_mm.registry' not in sys.modules
for first, *words in commands:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if first == '-c':
                sys.argv = ['-c', *words[1:]]
                exec(words[0], dict(__name__='__main__'))
            else:
                sys.argv, sys.path[0] = [first, *words], os.path.dirname(first)
                runpy.run_path(first, run_name='__main__')
            status = 0
        except SystemExit as error:
            status = bool(error.code)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
    print('=' * 9, 'done', '=' * 9)
"""
LOOK_UP = """
from mim import get_model_info

name = 'mask-rcnn_van-b0_fpn_1x_coco'
found = get_model_info('hybrid_mm', configs=[name], to_dict=True)[name]
assert found['config'] == f'configs/van/{name}.py', found
assert found['coco/box_ap'] == 40.2, found
assert len(get_model_info('hybrid_mm')) > 600
name = 'mask-rcnn_r50-gcb-r16-c3-c5_fpn_1x_coco'
found = get_model_info('hybrid_mm', configs=[name], to_dict=True)[name]
assert found['weight'].endswith('20200515_211915-187da160.pth'), found
"""


def run(command, cwd, path=None):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    environment.pop('PYTHONPATH', None)
    if path is not None:
        environment['PYTHONPATH'] = str(path)
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def run_all(package, commands, cwd, path):
    """What each command prints; see ``FORKS``."""
    texts = [json.dumps([str(word) for word in command]) for command in commands]
    out = run([*RUN, '-c', FORKS, json.dumps(package), *texts], cwd, path)
    *found, _ = out.split('========= done =========\n')
    assert len(found) == len(commands)
    return found


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
    """Folder with the source distribution and the wheel."""
    folder = tmp_path_factory.mktemp('packages')
    run(['-m', 'hatchling', 'build', '-d', folder], ROOT)
    return folder


@pytest.fixture(scope='module')
def wheel(packages):
    return next(packages.glob('hybrid_mm-*.whl'))


@pytest.fixture(scope='module')
def sdist(packages, tmp_path_factory):
    """Folder with the files of the source distribution."""
    with tarfile.open(next(packages.glob('hybrid_mm-*.tar.gz'))) as archive:
        folder = tmp_path_factory.mktemp('sdist')
        archive.extractall(folder, filter='data')
    return next(folder.iterdir())


@pytest.fixture(scope='module')
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(dist_info(archive.namelist()) + '/METADATA'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """Folder with the installed wheel and nothing else."""
    target = tmp_path_factory.mktemp('target')
    command = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', target]
    run([*command, wheel], target)
    return target


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """Four pictures with a red square and a blue bar, as COCO annotations and as maps."""
    root = tmp_path_factory.mktemp('dataset')
    (root / 'images').mkdir()
    (root / 'maps').mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(4):
        image = rng.integers(90, 160, (SIZE, SIZE, 3), dtype=np.uint8)
        labels = np.zeros((SIZE, SIZE), np.uint8)
        images.append(dict(id=index, file_name=f'{index}.png', width=SIZE, height=SIZE))
        shapes = [(4 + index, 6, 20, 20, (220, 30, 30)), (8, 40, 48, 10, (30, 30, 220))]
        for category, (x, y, width, height, colour) in enumerate(shapes, 1):
            image[y : y + height, x : x + width] = colour
            labels[y : y + height, x : x + width] = category
            right, bottom = x + width, y + height
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
                    category_id=category,
                    bbox=[x, y, width, height],
                    area=width * height,
                    iscrowd=0,
                    segmentation=[[x, y, right, y, right, bottom, x, bottom]],
                )
            )
        Image.fromarray(image).save(root / f'images/{index}.png')
        Image.fromarray(labels).save(root / f'maps/{index}.png')
    categories = [dict(id=1, name='square'), dict(id=2, name='bar')]
    coco = dict(images=images, annotations=annotations, categories=categories)
    (root / 'coco.json').write_text(json.dumps(coco))
    return root


def mim(package):
    return Path(find_spec(package).origin).parent / '.mim'


def dist_info(names):
    return next(name.split('/')[0] for name in names if name.endswith('/METADATA'))


def project_files():
    """Files of the checkout that git does not ignore."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard']
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip('not a git checkout')
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


def test_wheel_has_the_package_and_what_mim_expects(wheel):
    expected = {'hybrid_mm/.mim/model-index.yml'}
    for name in project_files():
        if re.match('tools/(dev/|demo.sh|setup|test.sh)', name):
            continue
        if name.startswith(('configs/', 'tools/')):
            expected.add(f'hybrid_mm/.mim/{name}')
        elif name.startswith('hybrid_mm/') and not name.startswith('hybrid_mm/.mim'):
            expected.add(name)
    names = set(zipfile.ZipFile(wheel).namelist())
    extra = {'METADATA', 'RECORD', 'WHEEL', 'licenses/LICENSE'}
    expected |= {f'{dist_info(names)}/{name}' for name in extra}
    assert names == expected
    assert 'hybrid_mm/py.typed' in names


def test_source_distribution_has_the_files_of_the_project(sdist):
    found = {path.relative_to(sdist).as_posix() for path in sdist.rglob('*') if path.is_file()}
    links = {'hybrid_mm/.mim/model-index.yml'}  # the others lead to folders
    assert found == project_files() - links | {'PKG-INFO'}


def test_source_distribution_builds_the_same_wheel(sdist, wheel, tmp_path):
    run(['-m', 'hatchling', 'build', '-t', 'wheel', '-d', tmp_path], sdist)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_no_path_of_this_machine_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if str(ROOT).encode() in archive.read(name)]
    assert not found


def test_editable_wheel_points_to_the_checkout(tmp_path):
    """Nothing but the path: MIM would take a folder hybrid_mm for the package."""
    run(['-m', 'hatchling', 'build', '-t', 'wheel:editable', '-d', tmp_path], ROOT)
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as archive:
        names = [name for name in archive.namelist() if '.dist-info/' not in name]
        assert names == ['_hybrid_mm.pth']
        assert archive.read(names[0]).decode() == str(ROOT)


def test_metadata(metadata, sdist):
    version = runpy.run_path(str(ROOT / 'hybrid_mm/version.py'))['__version__']
    assert metadata['Name'] == 'hybrid-mm'
    assert metadata['Version'] == version
    assert f'\nversion: {version}\n' in (ROOT / 'CITATION.cff').read_text()
    assert metadata['License-Expression'] == 'Apache-2.0'
    assert metadata.get_all('License-File') == ['LICENSE']
    assert metadata['Author'] in (ROOT / 'CITATION.cff').read_text()
    assert metadata['Summary'] and metadata['Keywords']
    python = SpecifierSet(metadata['Requires-Python'])
    versions = [c.split(' :: ')[-1] for c in metadata.get_all('Classifier')]
    versions = {v for v in versions if re.fullmatch(r'3\.\d+', v)}
    assert versions == {f'3.{minor}' for minor in range(14) if python.contains(f'3.{minor}')}
    assert (sdist / 'PKG-INFO').read_text().split('\n\n')[0].replace('\n', '') == ''.join(
        f'{name}: {value}' for name, value in metadata.items()
    )


def test_long_description_has_no_dead_links(metadata):
    text = metadata.get_payload()
    assert metadata['Description-Content-Type'] == 'text/markdown'
    assert text.startswith('# hybrid_mm\n')
    assert len(re.findall(r'\]\(https://', text)) > 20
    assert not re.findall(r'\]\((?!https://).*|^!.*', text, re.MULTILINE)


def test_extras(metadata):
    """The OpenMMLab packages are complete, with torchvision; what is optional is tested."""
    extras = {name: set() for name in metadata.get_all('Provides-Extra')}
    for text in metadata.get_all('Requires-Dist'):
        requirement = Requirement(text)
        for name in extras:
            if requirement.marker and requirement.marker.evaluate({'extra': name}):
                extras[name].add(requirement.name)
    modules = {'mmengine', 'mmcv', 'mmpretrain'}
    assert extras['openmmlab'] >= modules | {'mmdet', 'mmsegmentation', 'torchvision'}
    onedl = {f'onedl-{name}' for name in modules | {'mmdetection', 'mmsegmentation'}}
    assert extras['onedl'] >= onedl | {'torchvision'}
    assert extras['test'] >= extras['analysis'] | extras['docs'] | extras['export']


USER = """
import torch
from hybrid_mm.apis import Predictor
from hybrid_mm.backbones import VAN
from hybrid_mm.layers import NeighborhoodAttention2d

reveal_type(NeighborhoodAttention2d(8, heads=2))
reveal_type(Predictor)
VAN('b0')(torch.rand(1, 3, 32, 32))
VAN(arch=3)
"""


@pytest.mark.slow  # mypy reads torch
def test_types_reach_the_projects_of_users(installed, tmp_path):
    (tmp_path / 'user.py').write_text(USER)
    environment = {**os.environ, 'MYPYPATH': str(installed)}
    command = [sys.executable, '-m', 'mypy', '--cache-dir', str(tmp_path / 'cache'), 'user.py']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('user.py')]
    assert len(lines) == 3, done.stdout
    assert 'hybrid_mm.layers.attention.neighborhood_attention' in lines[0]
    assert 'config: str' in lines[1]
    assert 'Argument "arch" to "VAN" has incompatible type "int"' in lines[2]


def test_model_index_of_the_wheel_names_files_that_are_in_it(installed):
    import yaml

    resources = installed / 'hybrid_mm/.mim'
    for metafile in yaml.safe_load((resources / 'model-index.yml').read_text())['Import']:
        for model in yaml.safe_load((resources / metafile).read_text()).get('Models', []):
            assert (resources / model['Config']).is_file(), model['Config']


@pytest.mark.parametrize('where', ['wheel', 'checkout'])
def test_configs_can_be_inherited_from_elsewhere(where, request, tmp_path):
    """`hybrid_mm::...` works from the wheel and, through the links in .mim, from a checkout."""
    path = request.getfixturevalue('installed') if where == 'wheel' else ROOT
    (tmp_path / 'mine.py').write_text("_base_ = 'hybrid_mm::van/mask-rcnn_van-b0_fpn_1x_coco.py'")
    code = (
        'import hybrid_mm; from mmengine.config import Config\n'
        "print(Config.fromfile('mine.py').model.backbone.type)"
    )
    assert 'hybrid_mm.VAN' in run(['-c', code], tmp_path, path)


@needs_operators
def test_detection_with_mmdet_alone(installed, dataset, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(DETECTION + DETECTION_DATA.replace('{root}', str(dataset)))
    tools, weights = mim('mmdet') / 'tools', tmp_path / 'run/epoch_1.pth'
    commands = (
        [tools / 'train.py', config, '--work-dir', 'run'],
        [tools / 'test.py', config, weights, '--work-dir', 'run'],
        ['-c', DETECT, config, weights, dataset / 'images/0.png'],
    )
    trained, tested, detected = run_all('mmdet', commands, tmp_path, installed)
    assert 'coco/segm_mAP' in trained
    assert 'segm_mAP_50' in tested
    assert f'FROM {installed}' in detected


@pytest.mark.slow  # as the one above
@needs_operators
def test_segmentation_with_mmseg_alone(installed, dataset, tmp_path):
    config = tmp_path / 'config.py'
    text = SEGMENTATION.replace('{configs}', str(mim('mmseg') / 'configs'))
    config.write_text(text + SEGMENTATION_DATA.replace('{root}', str(dataset)))
    tools, weights = mim('mmseg') / 'tools', tmp_path / 'run/iter_2.pth'
    commands = (
        [tools / 'train.py', config, '--work-dir', 'run'],
        [tools / 'test.py', config, weights, '--work-dir', 'run'],
        ['-c', SEGMENT, config, weights, dataset / 'images/0.png'],
    )
    trained, tested, segmented = run_all('mmseg', commands, tmp_path, installed)
    assert 'mIoU' in trained
    assert 'mIoU' in tested
    assert f'FROM {installed}' in segmented


@pytest.mark.slow  # as the two above
def test_classification_with_mmpretrain_alone(installed, dataset, tmp_path):
    for index in range(4):
        folder = tmp_path / f'data/{index % 2}'
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(dataset / f'images/{index}.png', folder)
    config = tmp_path / 'config.py'
    text = CLASSIFICATION.replace('{configs}', str(mim('mmpretrain') / 'configs'))
    config.write_text(text.replace('{root}', str(tmp_path / 'data')))
    tools, weights = mim('mmpretrain') / 'tools', tmp_path / 'run/epoch_1.pth'
    commands = (
        [tools / 'train.py', config, '--work-dir', 'run'],
        [tools / 'test.py', config, weights, '--work-dir', 'run'],
        ['-c', CLASSIFY, config, weights, dataset / 'images/0.png'],
    )
    trained, tested, classified = run_all('mmpretrain', commands, tmp_path, installed)
    assert 'accuracy/top1' in trained
    assert 'accuracy/top1' in tested
    assert f'FROM {installed}' in classified


@pytest.mark.slow  # `new` is tested elsewhere, and so is MMSegmentation alone
def test_new_config_from_the_wheel_with_mmseg_alone(installed, dataset, tmp_path):
    """`python -m hybrid_mm` of the wheel writes what mmseg's own script trains."""
    for split in ('train', 'val'):
        for ours, theirs in (('images', 'images'), ('maps', 'masks')):
            shutil.copytree(dataset / ours, tmp_path / 'data' / theirs / split)
    new = ['-m', 'hybrid_mm', 'new', '--backbone', 'van-b0', '--head', 'semantic-fpn']
    new += ['--checkpoint', 'none']  # there may be no network
    new += ['--data', 'data', '--out', 'mine.py', '--scale', '64', '64']
    out = run(new, tmp_path, installed)
    assert '3 classes' in out
    assert f'next: python {installed / "hybrid_mm/.mim/tools/train.py"} mine.py' in out
    assert str(installed) in (tmp_path / 'mine.py').read_text()
    short = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'train_dataloader.num_workers=0']
    short += ['train_dataloader.persistent_workers=False']
    command = [*RUN, mim('mmseg') / 'tools/train.py', 'mine.py', '--cfg-options', *short]
    assert 'mIoU' in run(command, tmp_path, installed)


@pytest.mark.skipif(find_spec('mim') is None, reason='needs openmim')
def test_look_up_with_mim(installed, tmp_path):
    run(['-c', LOOK_UP], tmp_path, installed)


@pytest.mark.skipif(find_spec('mim') is None, reason='needs openmim')
@needs_operators
def test_training_with_mim(installed, dataset, tmp_path):
    """`mim train mmdet` and `mim test mmdet`, which start MMDetection's own scripts."""
    text = DETECTION.replace("'hybrid_mm.VAN', arch='b0'", "'hybrid_mm.NAT', arch='mini'")
    text = text.replace('[32, 64, 160, 256]', '[64, 128, 256, 512]')
    (tmp_path / 'mine.py').write_text(text + DETECTION_DATA.replace('{root}', str(dataset)))
    program = [*RUN, '-c', 'from mim.cli import cli; cli(prog_name="mim")']
    flags = ['mmdet', 'mine.py', '--gpus', '0', '--work-dir', 'run']
    assert 'coco/segm_mAP' in run([*program, 'train', *flags], tmp_path, installed)
    flags += ['--checkpoint', 'run/epoch_1.pth']
    assert 'segm_mAP_50' in run([*program, 'test', *flags], tmp_path, installed)
