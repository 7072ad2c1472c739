"""Every config builds, takes a training step, predicts, and is what its name says."""

import collections
import functools
import importlib.util
import re

import pytest
import torch
from mmengine.dataset import Compose

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.run.config import inner_dataset

from .conftest import (
    CONFIG_FILES,
    as_parameter,
    batch,
    bound,
    build,
    full,
    load,
    masked,
    narrow,
    network_of,
    optimizer,
    reduced,
    require_library,
    scope,
    shallow,
    smallest,
    warm_up,
)
from .meta import Remembered
from .test_zoo import MODELS

every_config = pytest.mark.parametrize('path', [as_parameter(p) for p in CONFIG_FILES])
PIPELINES: set[str] = set()  # that were built already
MASK2FORMER = 'mask2former_dinat-large-k11_8xb2-90k_cityscapes-512x1024'  # all of them are large
COUNTED: dict[str, tuple] = {}  # parameters and FLOPs of models
UNCOUNTED = {'init_cfg', 'train_cfg', 'drop_path_rate', 'data_preprocessor', 'norm_eval', 'loss'}


def is_large(path):
    return parameters(path) > 150_000_000


def parameters(path):
    """Number of parameters according to the metafile."""
    return MODELS[path.stem]['Metadata']['Parameters'] if path.stem in MODELS else 0


def choices(node, key=''):
    """Keys of a config, and its values that are not numbers: what two sizes have in common."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name not in ('init_cfg', 'arch', 'depth'):
                yield name, None
                yield from choices(value, name)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from choices(value, key)
    elif isinstance(node, (str, bool)):
        yield key, node


def choices_of(path):
    """Choices of a config: those of a backbone count once for each class, those of heads and
    optimizers once for detection, for segmentation and for classification, and each of these once
    for each tree.
    """
    cfg = load(path)
    others = {key: value for key, value in cfg.model.items() if key != 'backbone'}
    found = {(path.parent.name, cfg.default_scope)}
    for part in (others, cfg.optim_wrapper):
        found |= {(cfg.default_scope, *choice) for choice in choices(part)}
    return found | {(cfg.model.backbone.type, *choice) for choice in choices(cfg.model.backbone)}


def backbone_of(path):
    return {load(path).model.backbone.type}


@functools.cache
def representatives(choices=choices_of):
    """Configs that have every choice between them, those that have many for their size first; large
    networks only for what no other has.
    """
    made = owned = {path: set(choices(path)) for path in CONFIG_FILES}
    found, missing = set(), set().union(*made.values())
    while missing:
        new = {path: len(own & missing) / (2e7 + parameters(path)) for path, own in made.items()}
        best = max(made, key=lambda p: (not is_large(p), new[p], str(p)))
        if not new[best]:
            made = {path: own for path, own in made.items() if is_large(path)}
            continue
        found.add(best)
        missing -= made[best]
    times = collections.Counter(choice for path in found for choice in owned[path])
    for path in sorted(found, key=lambda p: (-parameters(p), str(p))):
        if all(times[choice] > 1 for choice in owned[path]):  # later ones have all of it
            found.remove(path)
            times.subtract(owned[path])
    return found


def test_there_are_configs():
    assert len(CONFIG_FILES) > 100


@every_config
def test_config(path):
    """It is what its name says; figures with every backbone, a step and a prediction with every
    choice there is.

    Those of the others and of large networks are in the slow tests.
    """
    cfg = load(path)
    assert cfg.custom_imports.imports == ['hybrid_mm']
    require_library(cfg)
    check_pipelines(path, cfg)
    if path.stem in MODELS:
        check_style(path)
        check_name(path, cfg)
    if path.parent.name in ('van', 'lska') and 'replknet' not in path.stem:
        check_name_of_van(path, cfg)
    if path in representatives(backbone_of) and path.stem in MODELS:
        check_metafile(path, cfg)
    if path in representatives() and (not is_large(path) or path.stem == MASK2FORMER):
        check_step_and_prediction(path)


@every_config
@pytest.mark.slow
def test_metafile(path):
    """Of all configs, not only of the representatives."""
    cfg = load(path)
    require_library(cfg)
    if path.stem in MODELS:
        check_metafile(path, cfg)


@every_config
@pytest.mark.slow
def test_step_and_prediction(path):
    """Of all configs, not only of the representatives."""
    check_step_and_prediction(path)


def check_step_and_prediction(path):
    cfg = reduced(path)
    require_library(cfg)
    narrow(cfg.model)
    shallow(cfg)
    model = build(cfg)
    wrapper = optimizer(cfg, model)
    warm_up(cfg, wrapper)
    before = [p.detach().clone() for p in model.backbone.parameters()]

    losses = model.train().train_step(batch(cfg), wrapper)
    assert torch.isfinite(losses['loss']), losses
    for name, p in model.backbone.named_parameters():
        if p.requires_grad:
            assert p in wrapper.optimizer.state, f'no gradient reached {name}'
            assert torch.isfinite(p).all(), name
    # not the first parameter, say: blocks whose last norm is 0 give none to those before it
    changed = [
        not torch.equal(*pair) for pair in zip(model.backbone.parameters(), before, strict=True)
    ]
    assert any(changed), 'the step left the backbone as it was'
    del before
    del wrapper

    size = (smallest(cfg), smallest(cfg) if bound(cfg) else smallest(cfg) * 3 // 2)
    with torch.no_grad():
        (result,) = model.eval().test_step(batch(cfg, n=1, size=size))
    if cfg.default_scope == 'mmpretrain':
        assert result.pred_score.shape == (cfg.model.head.num_classes,)
        assert torch.allclose(result.pred_score.sum(), torch.tensor(1.0), atol=1e-4)
    elif cfg.default_scope == 'mmseg':
        assert result.pred_sem_seg.data.shape == (1, *size)
        assert result.pred_sem_seg.data.max() < cfg.model.decode_head.num_classes
    elif (cfg.model.get('test_cfg') or {}).get('panoptic_on'):
        assert result.pred_panoptic_seg.sem_seg.shape[-2:] == size
    elif cfg.default_scope == 'mmpose':
        assert result.pred_instances.keypoints.shape == (1, cfg.model.head.out_channels, 2)
    else:
        boxes = result.pred_instances.bboxes
        assert boxes.shape[1] == (5 if cfg.default_scope == 'mmrotate' else 4)
        assert torch.isfinite(boxes).all()
        if 'mask_head' in cfg.model.get('roi_head', {}):
            assert result.pred_instances.masks.shape[1:] == size


@pytest.mark.slow
@pytest.mark.parametrize(
    'path', [as_parameter(p) for p in CONFIG_FILES if 'mask2former' in p.stem or is_large(p)]
)
def test_operations_of_large_networks(path):
    listed = MODELS[path.stem]['Metadata']
    shape = tuple(map(int, listed['Input Size'].split('x')))
    device = 'cpu' if 'mask2former' in path.stem else 'meta'
    assert complexity(full(path, device), shape)[1] == listed['FLOPs']


def check_metafile(path, cfg):
    """Run the whole network from shapes alone: parameters and FLOPs are those of the metafile."""
    listed = MODELS[path.stem]['Metadata']
    size = listed['Input Size']
    key = f'{size} {counts_of(cfg.model)!r}'
    if key not in COUNTED:
        network = full(path)
        found = sum(p.numel() for p in network.parameters())
        if masked(cfg.model) or is_large(path):  # see test_operations_of_large_networks
            assert found == listed['Parameters']
            return
        with Remembered():
            COUNTED[key] = complexity(network, tuple(map(int, size.split('x'))))
    assert COUNTED[key] == (listed['Parameters'], listed['FLOPs'])


def counts_of(node):
    """What of a model makes its parameters and FLOPs: schedules and weights do not."""
    if isinstance(node, dict):
        return {key: counts_of(value) for key, value in node.items() if key not in UNCOUNTED}
    return [counts_of(item) for item in node] if isinstance(node, (list, tuple)) else node


def check_pipelines(path, cfg):
    if 'panoptic' in path.stem and importlib.util.find_spec('panopticapi') is None:
        return  # its pipelines need panopticapi
    pipelines = [cfg.get('tta_pipeline')]
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg[loader] is None:
            continue
        pipelines.append(inner_dataset(cfg[loader].dataset).pipeline)
    with scope(cfg):
        for pipeline in filter(None, pipelines):
            key = f'{cfg.default_scope} {pipeline!r}'
            if key not in PIPELINES:
                Compose(pipeline)
                PIPELINES.add(key)


def check_style(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 24, 'say only what differs from the bases'
    assert '::' not in text, 'inherits from another package'


def check_name(path, cfg):
    """The name states batch, schedule and data."""
    name = path.stem
    match = re.search(r'_(\d+)xb(\d+)-', name + '-') or re.search(r'_(\d+)xb(\d+)_', name)
    gpus, samples = map(int, match.groups()) if match else (8, 2)
    assert cfg.train_dataloader.batch_size == samples
    assert cfg.auto_scale_lr.base_batch_size == gpus * samples

    loop = cfg.train_cfg
    for tag, key, expected in (
        # of 118,000 images
        ('lsj-100e_', 'max_iters', 11_800_000 // (gpus * samples)),
        ('lsj-75e_', 'max_iters', 8_850_000 // (gpus * samples)),
        ('lsj-50e_', 'max_iters', 5_900_000 // (gpus * samples)),
        ('lsj-36e_', 'max_iters', 67500),  # detectron2's "3x"
        ('_1x_', 'max_epochs', 12),
        ('-1x_', 'max_epochs', 12),
        ('_2x_', 'max_epochs', 24),
        ('-2x_', 'max_epochs', 24),
        ('-3x_', *(('max_iters', 67500) if gpus * samples == 64 else ('max_epochs', 36))),
        ('-12e_', 'max_epochs', 12),
        ('-24e_', 'max_epochs', 24),
        ('-36e_', 'max_epochs', 36),
        ('-72e_', 'max_epochs', 72),
        ('-90e_', 'max_epochs', 90),
        ('-20e_', 'max_epochs', 20),
        ('-95e_', 'max_epochs', 95),
        ('-350e_', 'max_epochs', 350),
        ('-30e_', 'max_epochs', 30),
        ('-40e_', 'max_epochs', 40),
        ('-100e_', 'max_epochs', 100),
        ('-130e_', 'max_epochs', 130),
        ('-150e_', 'max_epochs', 150),
        ('-120e_', 'max_epochs', 120),
        ('-210e_', 'max_epochs', 210),
        ('-1000e_', 'max_epochs', 1000),
        ('-300e_', 'max_epochs', 300),
        ('-20k_', 'max_iters', 20000),
        ('_in1k', 'max_epochs', 310),
        ('-50e_', *(('max_epochs', 50) if 'max_epochs' in loop else ('max_iters', 368750))),
        ('-40k_', 'max_iters', 40000),
        ('-20k_voc', 'max_iters', 20000),
        ('-90k_', 'max_iters', 90000),
        ('-116k_', 'max_iters', 115750),
        ('-80k_', 'max_iters', 80000),
        ('-160k_', 'max_iters', 160000),
    ):
        if tag in name + '_':
            assert loop[key] == expected
            break
    else:
        pytest.fail(f'no schedule in {name}')
    dataset = cfg.train_dataloader.dataset.type
    tags = dict(
        CocoDataset='_coco',
        CocoPanopticDataset='_coco-panoptic',
        ImageNet='_in1k',
        ImageNet21k='_in22k',
        ADE20KDataset='_ade20k-512x512',
        ADE20KInstanceDataset='_ade20k-instance-640x640',
        ADE20KPanopticDataset='_ade20k-panoptic-640x640',
        PascalVOCDataset='_voc12aug-512x512',
        CIFAR10='_cifar10',
        HAM10000='_ham10000',
    )
    if cfg.default_scope == 'mmseg' and '-640x640' in name:
        assert tuple(cfg.model.data_preprocessor.size) == (640, 640)
        tags['ADE20KDataset'] = '_ade20k-640x640'
    if dataset == 'CityscapesDataset':
        size = cfg.model.data_preprocessor.get('size')
        tags[dataset] = (
            '_cityscapes-{}x{}'.format(*size) if size else '_cityscapes-instance-512x1024'
        )
    if cfg.default_scope == 'mmpose':
        width, height = cfg.codec.input_size
        tags['CocoDataset'] = f'_coco-{height}x{width}'
    if match := re.search(r'-(320|384|512)$', name):
        last = cfg.val_dataloader.dataset.pipeline[-2]  # a crop, or the image is stretched
        size = last.crop_size if last.type == 'CenterCrop' else last.scale
        assert size in (int(match[1]), (int(match[1]),) * 2)
        tags['ImageNet'] += match[0]
    assert name.endswith(tags[dataset.removeprefix('hybrid_mm.')])


def check_name_of_van(path, cfg):
    """The name states the backbone."""
    backbone, network = cfg.model.backbone, network_of(path)
    match = re.match(r'van-(?:(lska|lka)(-trivial)?-)?(b\d|tiny|small|base)(?:-k(\d+))?', network)
    operator, trivial, arch, kernel = match.groups()
    assert backbone.arch == arch
    assert backbone.get('attention', 'lka') == (operator or 'lka') + ('_trivial' if trivial else '')
    assert backbone.get('kernel_size', 23) == int(kernel or 23)
    if cfg.default_scope == 'mmpretrain':
        return
    # weights of the very same network; LKA-Tiny at kernel size 23 is VAN-B0
    stem = {'van-lka-tiny': 'van-b0'}.get(network, network)
    expected = stem.replace('-in22k', '_in22k') if 'in22k' in stem else f'{stem}_in1k'
    assert backbone.init_cfg.checkpoint == f'hybrid_mm://{expected}'
