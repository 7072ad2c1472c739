"""Base configs: data sets through the real pipelines, schedules, recipes, runtime."""

import importlib.util
import json
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, METRICS, MODELS, PARAM_SCHEDULERS, VISUALIZERS
from PIL import Image

from .conftest import CONFIGS, build, load, optimizer, reduced, require_library, scope
from .loading import fromfile

ROOTS = dict(
    coco='COCO_ROOT',
    ade20k='ADE_ROOT',
    cityscapes='CITYSCAPES_ROOT',
    voc12aug='VOC_ROOT',
    imagenet='IMAGENET_ROOT',
    imagenet22k='IMAGENET22K_ROOT',
    dota='DOTA_ROOT',
)
DATA = {
    path.stem: path
    for path in sorted((CONFIGS / '_base_/datasets').glob('*.py'))
    if path.stem.split('_')[0] in ROOTS
}
TASKS = dict(
    coco='det',
    ade20k='seg',
    cityscapes='seg',
    voc12aug='seg',
    imagenet='cls',
    imagenet22k='cls',
    dota='rotate',
)


def config_of(name: str) -> Config:
    """The data set file together with its runtime."""
    task = 'det' if re.search('instance|panoptic', name) else TASKS[name.split('_')[0]]
    cfg = fromfile(CONFIGS / f'_base_/default_runtime_{task}.py')
    cfg.merge_from_dict(dict(fromfile(DATA[name])))
    return cfg


def _image(path, h=60, w=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _coco(root):
    for split in ('train', 'val'):
        images, annotations, segments = [], [], []
        for i in range(2):
            file = f'{i:012d}.jpg'
            _image(root / f'{split}2017' / file)
            images.append(dict(id=i, file_name=file, height=60, width=90))
            box = [10, 5, 50, 40]  # x, y, width, height
            corners = [10, 5, 60, 5, 60, 45, 10, 45]
            annotations.append(
                dict(
                    id=i + 1,
                    image_id=i,
                    category_id=3,
                    bbox=box,
                    area=2000,
                    iscrowd=0,
                    segmentation=[corners],
                )
            )
            ids = np.zeros((60, 90, 3), np.uint8)
            ids[..., 0] = 1  # background: stuff
            ids[5:45, 10:60, 0] = 2
            png = root / f'annotations/panoptic_{split}2017/{i:012d}.png'
            png.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids).save(png)
            png = root / f'stuffthingmaps/{split}2017/{i:012d}.png'
            png.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids[..., 0]).save(png)
            segments.append(
                dict(
                    image_id=i,
                    file_name=png.name,
                    segments_info=[
                        dict(id=1, category_id=200, bbox=[0, 0, 90, 60], area=3400, iscrowd=0),
                        dict(id=2, category_id=3, bbox=box, area=2000, iscrowd=0),
                    ],
                )
            )
        thing = dict(id=3, name='car', isthing=1)
        stuff = dict(id=200, name='rug-merged', isthing=0)
        for task, found, categories in (
            ('instances', annotations, [thing]),
            ('panoptic', segments, [thing, stuff]),
        ):
            (root / f'annotations/{task}_{split}2017.json').write_text(
                json.dumps(dict(images=images, annotations=found, categories=categories))
            )


def _objects(path, image, box):
    """A file of annotations: one car on one image of 60 x 90."""
    x, y, width, height = box
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    car = dict(id=1, image_id=0, category_id=3, bbox=box, area=width * height, iscrowd=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [dict(id=0, file_name=image, height=60, width=90)]
    things = [dict(id=3, name='car')]
    content = dict(images=images, annotations=[car | dict(segmentation=[corners])])
    path.write_text(json.dumps(content | dict(categories=things)))


def _ade(root):
    for split in ('training', 'validation'):
        _image(root / f'images/{split}/a.jpg')
        labels = np.zeros((60, 90), np.uint8)
        labels[:30], labels[30:50] = 1, 150  # the rest 0, unlabelled
        target = root / f'annotations/{split}/a.png'
        target.parent.mkdir(parents=True)
        Image.fromarray(labels).save(target)
        short = dict(training='train', validation='val')[split]
        _objects(root / f'ade20k_instance_{short}.json', 'a.jpg', [10, 5, 50, 40])


def _cityscapes(root):
    for split in ('train', 'val'):
        _image(root / f'leftImg8bit/{split}/ulm/ulm_1_leftImg8bit.png')
        labels = np.full((60, 90), 255, np.uint8)
        labels[:30], labels[30:50] = 0, 18
        target = root / f'gtFine/{split}/ulm/ulm_1_gtFine_labelTrainIds.png'
        target.parent.mkdir(parents=True)
        Image.fromarray(labels).save(target)
        file = root / f'annotations/instancesonly_filtered_gtFine_{split}.json'
        _objects(file, 'ulm/ulm_1_leftImg8bit.png', [10, 5, 50, 40])


def _voc(root):
    _image(root / 'JPEGImages/a.jpg')
    labels = np.full((60, 90), 255, np.uint8)
    labels[:30], labels[30:50] = 0, 20
    (root / 'ImageSets/Segmentation').mkdir(parents=True)
    for kind, split in (('', 'val'), ('Aug', 'trainaug')):
        (root / f'SegmentationClass{kind}').mkdir()
        Image.fromarray(labels).save(root / f'SegmentationClass{kind}/a.png')
        (root / f'ImageSets/Segmentation/{split}.txt').write_text('a\n')


def _imagenet(root):
    (root / 'meta').mkdir()
    for split in ('train', 'val'):
        _image(root / f'{split}/a.jpg', 300, 400)
        (root / f'meta/{split}.txt').write_text('a.jpg 7\n')


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    result = {}
    makers = dict(coco=_coco, ade20k=_ade, cityscapes=_cityscapes, imagenet=_imagenet)
    makers |= dict(imagenet22k=_imagenet, voc12aug=_voc)
    for data, make in makers.items():
        variable = ROOTS[data]
        result[variable] = tmp_path_factory.mktemp(variable.lower())
        make(result[variable])
    return result


@pytest.mark.part_of('bases')
@pytest.mark.parametrize('slash', ['', '/'])
@pytest.mark.parametrize('name', DATA)
def test_environment_variable_moves_every_path(name, slash, monkeypatch):
    cfg = config_of(name)
    default = cfg.data_root
    monkeypatch.setenv(ROOTS[name.split('_')[0]], '/some/where' + slash)
    text = repr(config_of(name).to_dict())
    assert default not in text
    files = re.findall(r"ann_file': '(/some/where/+)(?:annotations/|ade20k_)", text)
    assert files or 'CocoMetric' not in text


@pytest.mark.part_of('bases')
@pytest.mark.parametrize('name', [name for name in DATA if name != 'dota'])  # test_rotated.py
def test_pipelines_on_files(name, roots, monkeypatch):
    if 'panoptic' in name and importlib.util.find_spec('panopticapi') is None:
        pytest.skip('needs panopticapi')
    variable = ROOTS[name.split('_')[0]]
    monkeypatch.setenv(variable, str(roots[variable]))
    cfg = config_of(name)
    models = dict(mmdet='mask-rcnn_r50_fpn', mmseg='fpn_r50', mmpretrain='classifier')
    model = fromfile(CONFIGS / f'_base_/models/{models[cfg.default_scope]}.py').model
    if 'crop_size' in cfg:
        model.data_preprocessor.size = cfg.crop_size
    np.random.seed(0)
    with scope(cfg):
        train = DATASETS.build(cfg.train_dataloader.dataset)
        val = DATASETS.build((cfg.val_dataloader or cfg.train_dataloader).dataset)
        if cfg.val_dataloader is not None:  # not of pre-training
            METRICS.build(cfg.val_evaluator)
        preprocess = MODELS.build(model.data_preprocessor)
        fed = preprocess(pseudo_collate([train[0] for _ in range(2)]), training=True)
        seen = preprocess(pseudo_collate([val[0]]), training=False)
        augmented = Compose(cfg.tta_pipeline)(val.get_data_info(0)) if 'tta_pipeline' in cfg else {}
    shape, sample = tuple(fed['inputs'].shape[-2:]), fed['data_samples'][0]
    tested, whole = tuple(seen['inputs'].shape[-2:]), seen['data_samples'][0]
    assert fed['inputs'].dtype == torch.float32

    if cfg.default_scope == 'mmpretrain':
        size = int((re.search(r'_(\d{3})(?:_|$)', name) or [0, 224])[1])
        assert shape == tested == (size, size)
        assert sample.gt_label.tolist() == [7]
        assert fed['inputs'].min() >= -1.001  # mean = std = 0.5
        assert fed['inputs'].max() <= 1.001 or name == 'imagenet_1k'  # erasing draws noise
        assert seen['inputs'].abs().max() <= 1.001
    elif cfg.default_scope == 'mmseg':
        streets = name.startswith('cityscapes')
        short = 1024 + ('769' in name) if streets else 640 if 'k_640' in name else 512
        crop = tuple(cfg.crop_size)
        side = next((int(side) for side in ('769', '640') if side in name), 512)
        assert crop == (side, 1024 if (side, streets) == (512, True) else side)
        assert shape == crop
        if name.startswith('voc'):  # a canvas: 60 x 90 to longer side 512
            assert tested == (341, 512)
            assert set(whole.gt_sem_seg.data.unique().tolist()) == {0, 20, 255}
            assert max(tuple(image.shape[-2:]) for image in augmented['inputs']) == (427, 640)
            return
        labels = {0, 18 if streets else 149, 255}
        assert set(sample.gt_sem_seg.data.unique().tolist()) <= labels
        # 60 x 90 to shorter side 512, longer 768
        assert tested == (short, (short * 3 + 1) // 2)
        assert whole.gt_sem_seg.data.shape[-2:] == (60, 90)
        assert set(whole.gt_sem_seg.data.unique().tolist()) == labels
        sizes = [tuple(image.shape[-2:]) for image in augmented['inputs']]
        assert len(sizes) == 12  # six scales, flipped and not
        assert min(sizes)[0] == short // 2
        assert max(sizes)[0] == short * 7 // 4
        if 'align32' in name:
            assert all(side % 32 == 0 for size in sizes for side in size)
    else:
        assert shape[0] % 32 == shape[1] % 32 == 0
        assert whole.ori_shape == (60, 90)
        if name.startswith(('ade20k', 'cityscapes')):
            ade = name.startswith('ade20k')
            assert shape == (640, 640) if ade else 512 in shape  # an image of 3:2 is less wide
            assert whole.img_shape == ((640, 960) if ade else (1024, 1536))
            assert sample.gt_instances.labels.tolist() in ([0], [])
            assert 'masks' in sample.gt_instances
            return
        canvas = re.search(r'_(\d+)x\1', name)
        expected = (683, 1024) if name.endswith('_lsj_1024') else (800, 1200)
        assert whole.img_shape == ((int(canvas[1]),) * 2 if canvas else expected)
        assert not canvas or shape == whole.img_shape
        if 'panoptic' not in name:
            assert sample.gt_instances.labels.tolist() in ([0], [])  # empty if cropped off
            assert ('masks' in sample.gt_instances) == ('instance' in name)
            assert len(augmented['inputs']) == 6
            if 'ms-crop' in name:
                assert min(sample.img_shape) in range(480, 801, 32)


def test_tests_of_ade20k_reach_multiples_of_32(roots, monkeypatch):
    monkeypatch.setenv('ADE_ROOT', str(roots['ADE_ROOT']))
    _image(roots['ADE_ROOT'] / 'images/validation/a.jpg', 60, 101)
    for name, expected in (('ade20k', (512, 862)), ('ade20k_align32', (512, 864))):
        cfg = config_of(name)
        with scope(cfg):
            item = DATASETS.build(cfg.val_dataloader.dataset)[0]
        assert tuple(item['inputs'].shape[-2:]) == expected


# ---- schedules


def rates(name: str, iterations: dict[str, int], epoch: int = 1) -> dict[str, float]:
    """Learning rates of a schedule at named iterations."""
    cfg = fromfile(CONFIGS / f'_base_/schedules/{name}.py')
    parameter = torch.nn.Parameter(torch.zeros(1))
    optim = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(settings, default_args=dict(optimizer=optim))
        for settings in cfg.param_scheduler
    ]
    result, last = {}, max(iterations.values())
    optim.step()
    for i in range(last + 1):
        result |= {key: optim.param_groups[0]['lr'] for key, at in iterations.items() if at == i}
        for scheduler in schedulers:
            if not scheduler.by_epoch or (i + 1) % epoch == 0:
                scheduler.step()
    return result


@pytest.mark.parametrize('epochs, steps', [(12, (8, 11)), (36, (27, 33))])
def test_detection_schedule(epochs, steps):
    at = dict(
        first=0, warm=1000, before=steps[0] * 100 - 1, after=steps[0] * 100, last=steps[1] * 100
    )
    got = rates(f'schedule_{epochs // 12}x_adamw', at, epoch=100)
    if steps[0] * 100 > 1000:
        assert got['before'] == pytest.approx(1e-4)
    assert got['first'] == pytest.approx(1e-7)
    assert got['last'] == pytest.approx(1e-6, rel=0.15)


def test_segmentation_schedules():
    got = rates('schedule_160k_adamw', dict(first=0, warm=1500, middle=80000, end=159999))
    assert got['first'] == pytest.approx(6e-11)
    assert got['warm'] == pytest.approx(6e-5 * (1 - 1500 / 160000), rel=1e-3)
    assert got['middle'] == pytest.approx(3e-5, rel=1e-3)
    assert got['end'] < 1e-9
    got = rates('schedule_40k_adamw', dict(first=0, middle=20000, end=39999))
    assert got['first'] == pytest.approx(1e-4)
    assert got['middle'] == pytest.approx(1e-4 * 0.5**0.9, rel=1e-3)
    assert got['end'] < 1e-8


def test_imagenet_schedule():
    got = rates('imagenet_bs1024_adamw_300e', dict(first=0, warm=5, middle=152, cool=300, end=309))
    assert got['first'] == pytest.approx(1e-6)
    assert got['warm'] == pytest.approx(1e-3, rel=1e-3)
    assert got['middle'] == pytest.approx(5e-4, rel=0.02)
    assert got['cool'] == got['end'] == pytest.approx(1e-6, rel=0.05)


# ---- recipes, as the papers and their code give them


def options(cfg: Config, model) -> dict[str, tuple[float, float]]:
    """Rate and weight decay of each parameter."""
    groups = optimizer(cfg, model).optimizer.param_groups
    by_id = {id(p): (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
    return {name: by_id[id(p)] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    'name, rate, decay',
    [
        ('van/mask-rcnn_van-b0_fpn_1x_coco', 1e-4, 0.05),
        ('van/atss_van-b2_fpn_ms-crop-3x_coco', 1e-4, 0.05),
        ('lska/retinanet_van-lska-tiny_fpn_1x_coco', 1e-4, 0.05),
        ('van/van-b0_fpn_8xb4-40k_ade20k-512x512', 2e-4, 1e-4),
        ('lska/van-lska-tiny_fpn_4xb4-80k_ade20k-512x512', 1e-4, 1e-4),
    ],
)
def test_one_decay_for_all_parameters(name, rate, decay):
    cfg = reduced(CONFIGS / f'{name}.py')
    assert set(options(cfg, build(cfg)).values()) == {(rate, decay)}
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert not cfg.optim_wrapper.get('clip_grad')


def test_upernet_spares_norms():
    cfg = reduced(CONFIGS / 'van/van-b0_upernet_8xb2-160k_ade20k-512x512.py')
    for name, (rate, decay) in options(cfg, build(cfg)).items():
        assert rate == 6e-5
        assert decay == (0.0 if 'norm' in name else 0.01), name


def test_imagenet_spares_vectors():
    cfg = reduced(CONFIGS / 'van/van-b0_8xb128_in1k.py')
    model = build(cfg)
    shapes = dict(model.named_parameters())
    for name, (rate, decay) in options(cfg, model).items():
        assert rate == 1e-3
        assert decay == (0.0 if shapes[name].ndim == 1 else 0.05), name


def test_mask2former_rates():
    cfg = reduced(CONFIGS / 'van/mask2former_van-b2_8xb2-lsj-50e_coco-panoptic.py')
    for name, (rate, decay) in options(cfg, build(cfg)).items():
        assert rate == pytest.approx(1e-5 if name.startswith('backbone.') else 1e-4), name
        spared = re.search(r'query|level_embed|norm|\.gn\.', name)
        assert decay == (0 if spared else 0.05), name


@pytest.mark.parametrize('b, fpn, upernet', [
    (0, 0.2, 0.1), (1, 0.2, 0.1), (2, 0.2, 0.1), (3, 0.3, 0.3), (4, 0.4, 0.4),
])  # fmt: skip
def test_drop_path_and_norm_on_ade20k(b, fpn, upernet):
    per_gpu = 4 if b == 4 else 2
    for name, expected in (
        (f'van-b{b}_fpn_8xb4-40k_ade20k-512x512', fpn),
        (f'van-b{b}_upernet_8xb{per_gpu}-160k_ade20k-512x512', upernet),
    ):
        cfg = load(CONFIGS / f'van/{name}.py')
        assert cfg.model.backbone.drop_path_rate == expected
        assert cfg.model.backbone.norm_cfg.type == cfg.model.decode_head.norm_cfg.type == 'SyncBN'
        assert any(t.type == 'ResizeToMultiple' for t in cfg.test_dataloader.dataset.pipeline)
    lska = load(CONFIGS / 'lska/van-lska-tiny_fpn_4xb4-80k_ade20k-512x512.py')
    assert lska.model.backbone.drop_path_rate == 0.1
    assert not any(t.type == 'ResizeToMultiple' for t in lska.test_dataloader.dataset.pipeline)


# ---- runtime and models


@pytest.mark.parametrize('task', ['det', 'seg', 'cls'])
def test_tensorboard_by_environment(task, tmp_path, monkeypatch):
    cfg = fromfile(CONFIGS / f'_base_/default_runtime_{task}.py')
    assert [backend.type for backend in cfg.visualizer.vis_backends] == ['LocalVisBackend']
    monkeypatch.setenv('VIS_BACKENDS', 'LocalVisBackend,TensorboardVisBackend')
    cfg = fromfile(CONFIGS / f'_base_/default_runtime_{task}.py')
    with scope(cfg):
        visualizer = VISUALIZERS.build(dict(cfg.visualizer, save_dir=str(tmp_path)))
    assert list(visualizer._vis_backends) == ['LocalVisBackend', 'TensorboardVisBackend']


BASES = sorted((CONFIGS / '_base_/models').glob('*_r50*.py'))


@pytest.mark.part_of('bases')
@pytest.mark.parametrize('path', BASES, ids=lambda p: p.stem)
def test_base_models_build(path):
    cfg = reduced(path)
    cfg.default_scope = 'mmseg' if cfg.model.type == 'EncoderDecoder' else 'mmdet'
    others = dict(oriented='mmrotate', simple='mmpose')
    cfg.default_scope = others.get(path.stem.split('-')[0], cfg.default_scope)
    require_library(cfg)
    assert sum(p.numel() for p in build(cfg).parameters()) > 20e6
