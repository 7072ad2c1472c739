"""Values of configs that follow from others, in every tree."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from hybrid_mm.run.checks.schedule import misfits

from .loading import CONFIGS, look_at

sys.path.append(str(Path(__file__).resolve().parents[1]))

from digests.stored import decode, path_of

# What a file sets besides the network, its weights and its widths. A file without any of these has
# the values of the file that it inherits from, which is checked.
SAYS = re.compile(r'_base_ = \[|param_scheduler|train_cfg|lr=|batch_size|mean=|test_cfg|pipeline')
CONFIG_FILES = [
    path
    for path in sorted(CONFIGS.glob('*/*.py'))
    if path.parent.name not in ('_base_', 'demo') and SAYS.search(path.read_text())
]
TREES = sorted({path.parent.name for path in CONFIG_FILES})
IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
HALF = [127.5] * 3, [127.5] * 3
TENSORFLOW = [123.68, 116.78, 103.94], [1.0] * 3  # EA-AA-ResNet
CIFAR = [125.307, 122.961, 113.8575], [51.5865, 50.847, 51.255]
every_tree = pytest.mark.parametrize(
    'tree', [pytest.param(tree, marks=pytest.mark.part_of(f'tree:{tree}')) for tree in TREES]
)


def configs(tree: str) -> Iterator[tuple[str, dict]]:
    for path in CONFIG_FILES:
        if path.parent.name == tree:
            yield path.stem, look_at(path)


def check_schedule(cfg) -> None:
    """The rate follows one schedule after the other, up to the end of the training."""
    loop = cfg.train_cfg
    by_epoch = 'max_epochs' in loop
    total = loop.get('max_epochs') or loop.max_iters
    *first, last = cfg.param_scheduler
    longer = (300, 310), (115750, 90000)  # timm's cool-down; MaxViT's cosine, which is cut
    if last.type == 'ConstantLR' and first:  # after a cosine
        assert (last.factor, last.begin, last.end) == (1, first[-1].end, total)
        longer += ((last.begin, total),)
        *first, last = first
    for item in cfg.param_scheduler:
        # a period that is named is that between begin and end
        assert item.get('T_max', item.end - item.get('begin', 0)) == item.end - item.get('begin', 0)
        steps = item.get('milestones', [])
        assert list(steps) == sorted(set(steps))
        assert not steps or 0.5 * item.end < steps[-1] < item.end == total or steps[0] == 30
    assert last.by_epoch == by_epoch
    assert last.end == total or (last.end, total) in longer
    if first:
        (warm,) = first
        assert warm.type in ('LinearLR', 'ConstantLR')
        assert warm.begin == 0
        # where both count the same, the second begins at the end of the first; timm's cosine at 0
        if last.type != 'MultiStepLR' and warm.by_epoch == last.by_epoch:
            # factors of an epoch each (distribuuuu); timm's and TensorFlow's cosines count from 0
            by_steps = warm.by_epoch and not warm.get('convert_to_iter_based')
            # such a LinearLR is through one step before its end
            assert last.begin in (0, warm.end - (warm.type == 'LinearLR' and by_steps), warm.end)
            assert warm.end < 0.25 * total
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    built = [
        PARAM_SCHEDULERS.build(dict(item), default_args=dict(optimizer=optimizer, epoch_length=500))
        for item in cfg.param_scheduler
    ]
    epochs, iters = (total, 500 * total) if by_epoch else (None, total)
    assert list(misfits(built, epochs, iters)) == []
    saving = cfg.default_hooks.checkpoint
    assert saving.get('by_epoch', True) == by_epoch
    assert max(saving.interval, loop.val_interval) < total
    if 'dynamic_intervals' in loop:
        ((begin, interval),) = loop.dynamic_intervals
        assert (begin, interval) == (total // loop.val_interval * loop.val_interval + 1, total)


def siblings(path: Path) -> list[Path]:
    """Configs that one inherits from, the next one first, up to one that lists its bases."""
    base = re.search(r"^_base_ = '(.+)'", path.read_text(), re.M)
    return [path.parent / base[1], *siblings(path.parent / base[1])] if base else []


@every_tree
def test_at_most_two_steps_lead_to_a_list_of_bases(tree):
    for path in sorted((CONFIGS / tree).glob('*.py')):
        assert len(siblings(path)) <= 2, path.stem


@every_tree
def test_schedules(tree):
    for name, cfg in configs(tree):
        try:
            check_schedule(cfg)
        except AssertionError as error:
            raise AssertionError(f'{name}: {cfg.train_cfg}, {cfg.param_scheduler}') from error


STEPS = 50
"""Steps to which runs are shortened."""


def factors_of_groups(tree: str) -> Iterator[tuple[str, list[float]]]:
    """Learning rates of the groups of built models as multiples of the optimizer's, by config."""
    for name, section in decode(path_of(f'configs/{tree}').read_text()).items():
        found = {float(m[1]) for key in section if (m := re.match(r'\(built\)\.lr\*(\S+)', key))}
        yield name, sorted(found)


@functools.cache
def rises(schedulers: str, total: int, by_epoch: bool, rate: float, factors: tuple) -> bool:
    """Whether a rate rises in a step after the warm-up, for the text of a list of schedulers."""
    groups = [dict(params=[torch.zeros(1)], lr=rate * factor) for factor in factors]
    optimizer, built, warm = torch.optim.SGD(groups, lr=rate), [], 0
    for item in ast.literal_eval(schedulers):
        length = total if item['by_epoch'] == by_epoch else total * 500
        for key in ('begin', 'end', 'T_max'):
            if item.get(key):
                item[key] = max(
                    round(item[key] * STEPS / length), 2
                )  # of one step, LinearLR does nothing
        if 'milestones' in item:
            item['milestones'] = [round(step * STEPS / length) for step in item['milestones']]
        item.pop('convert_to_iter_based', None)
        if item['type'] in ('LinearLR', 'ConstantLR'):
            warm = max(warm, item['end'])
        built.append(PARAM_SCHEDULERS.build(item, default_args=dict(optimizer=optimizer)))
    before = None
    for step in range(STEPS):
        rates = [group['lr'] for group in optimizer.param_groups]
        if step > warm and any(b > a * (1 + 1e-6) for a, b in zip(before, rates, strict=True)):
            return True
        before = rates
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    return False


@every_tree
def test_no_rate_rises_after_the_warm_up(tree):
    """Also not that of a layer whose rate is below the floor of a schedule for all."""
    for name, factors in factors_of_groups(tree):
        path = CONFIGS / tree / f'{name}.py'
        cfg = look_at(path)
        total = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
        schedulers = str([item.to_dict() for item in cfg.param_scheduler])
        settings = total, 'max_epochs' in cfg.train_cfg, cfg.optim_wrapper.optimizer.lr
        assert factors and not rises(schedulers, *settings, tuple(factors)), name


# of 256 images (classifiers) or 16 (others); a number in a comment of each file, as published
RATES = {
    'classifier': 0.1,
    'RetinaNet': 0.01,
    'HybridTaskCascade': 0.02,
    'CascadeRCNN': 0.02,
    'MaskRCNN': 0.02,
    'EncoderDecoder': 0.01,
}
OTHER_RATES = {
    r'botnet/bot\d*.*-s1_8xb32-100e_in1k': 0.2,  # distribuuuu
    r'cvt/.*-20k_in1k-384': 0.0015,
    r'acmix/r\d\d-acmix_8xb16-90e_in1k': 0.2,
    r'evolving_attention/.*_in1k': 0.128,
    r'gcnet/.*-40e_in1k|gcnet/.*_8xb32-40e_in1k': 0.04,  # 40 epochs more
    r'attention_modules/.*_ham10000': 0.08,
    r'quadratic_attention/.*_cifar10': 0.256,
    r'aa_resnet/retinanet.*_8xb8-150e_coco': 0.02,  # from scratch
    r'sasa/retinanet.*_8xb8-150e_coco': 0.03,  # from scratch: 0.12 of 64
    r'maxvit/retinanet.*': 0.02,  # 0.32 of 256
    r'(botnet|halonet)/mask-rcnn.*_8xb8-.*': 0.025,  # 0.1 of 64
}


@every_tree
def test_rates_of_sgd_are_of_the_batch(tree):
    for name, cfg in configs(tree):
        settings = cfg.optim_wrapper.optimizer
        if settings.type != 'SGD':
            continue
        assert settings.momentum == 0.9, name
        batch = cfg.auto_scale_lr.base_batch_size
        classifies = cfg.default_scope == 'mmpretrain'
        expected = RATES['classifier' if classifies else cfg.model.type]
        for pattern, rate in OTHER_RATES.items():
            if re.fullmatch(pattern, f'{tree}/{name}'):
                expected = rate
        found = settings.lr * (256 if classifies else 16) / batch
        assert found == pytest.approx(expected), name


@every_tree
def test_means_belong_to_standard_deviations(tree):
    """What is erased gets the same. test_weights.py tells which they are."""
    for name, cfg in configs(tree):
        settings = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
        found = list(settings.mean), list(settings.std)
        assert found in (IMAGENET, HALF, CIFAR, TENSORFLOW), name
        for step in cfg.train_dataloader.dataset.get('pipeline', ()):
            if step.type == 'RandomErasing':
                assert (step.fill_color[::-1], step.fill_std[::-1]) == found, name
            # TensorFlow fills with 128, whatever the mean
            if step.get('policies') == 'timm_increasing' and tree != 'maxvit':
                assert step.hparams.pad_val[::-1] == [round(mean) for mean in found[0]], name


def numbers_of_classes(node) -> Iterator[int]:
    if isinstance(node, dict):
        if 'num_classes' in node:
            yield node['num_classes']
        for value in node.values():
            yield from numbers_of_classes(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from numbers_of_classes(value)


CLASSES = dict(
    CocoDataset={80},
    ADE20KDataset={150},
    CityscapesDataset={19},
    PascalVOCDataset={21},
    ImageNet={1000},
    ImageNet21k={21841},
    CIFAR10={10},
    HAM10000={7},
    BaseSegDataset={11},
    DOTADataset={15},
)


@every_tree
def test_all_heads_have_the_classes_of_the_data(tree):
    for name, cfg in configs(tree):
        dataset = cfg.train_dataloader.dataset.type.removeprefix('hybrid_mm.')
        if cfg.model.type == 'Mask2Former':  # counts things and stuff
            continue
        if cfg.default_scope == 'mmpose':
            assert cfg.model.head.out_channels == 17, name
            continue
        found = set(numbers_of_classes(cfg.model))
        if 'htc' in name:
            found -= {183}  # things and stuff, of the semantic head
        assert found == CLASSES[dataset], name


@every_tree
def test_windows_of_the_test_are_the_crops_of_the_training(tree):
    """Two thirds of a window further each time."""
    for name, cfg in configs(tree):
        if cfg.default_scope != 'mmseg':
            continue
        size = tuple(cfg.model.data_preprocessor.size)
        crops = [
            s.crop_size for s in cfg.train_dataloader.dataset.pipeline if s.type == 'RandomCrop'
        ]
        assert [tuple(crop) for crop in crops] == [size], name
        test = cfg.model.test_cfg
        if test.mode == 'slide':
            assert tuple(test.crop_size) == size, name
            assert tuple(test.stride) == tuple(side * 2 // 3 for side in size), name


@every_tree
def test_layer_decay_has_its_constructor(tree):
    for name, cfg in configs(tree):
        settings = cfg.optim_wrapper.get('paramwise_cfg') or {}
        decays = 'LayerDecay' in (cfg.optim_wrapper.get('constructor') or '')
        assert decays == ('layer_decay_rate' in settings), name
        assert not decays or 0.5 < settings.layer_decay_rate < 1, name


@every_tree
def test_every_key_of_custom_keys_holds_for_a_parameter(tree):
    """As the digests tell, which tests/digests compares with the built models."""
    line = '(built).custom_keys without parameters'
    sections = decode(path_of(f'configs/{tree}').read_text())
    unused = [f'{name}: {found[line]}' for name, found in sections.items() if line in found]
    assert not unused, '\n'.join(unused)
