"""Metrics of models in PyTorch beside those of their ONNX files, one model of each head.

python tools/dev/onnx_pairs.py --out DIR --coco ROOT --ade ROOT --camvid ROOT
python tools/dev/onnx_pairs.py --out DIR --demo work_dirs/demo --demo-data data/demo

A small VAN with each head is trained for some iterations on a few of the very images that it is
tested on, so that there is something to measure; tools/test.py tests it, tools/export_onnx.py
exports it, and tools/test.py tests the file. Rows of data whose folder is not named are left out.
With --demo the models that tools/demo.py has trained are compared, and with what its configs
promise. Trainings that are in DIR are kept. Prints a table in Markdown, which is in DIR/pairs.md
as well; the exit status is 1 if a metric differs by more than 0.1 points or a row fails.
"""

import argparse
import functools
import importlib
import json
import multiprocessing
import os
import runpy
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# imported once: every command runs in a fork of the process that has them
MODULES = ('hybrid_mm', 'mmdet.models', 'mmdet.datasets', 'mmdet.evaluation')  # ours first, for B5
MODULES += ('mmseg.models', 'mmseg.datasets', 'mmpretrain.models', 'mmpretrain.datasets')
ALLOWED = 0.1  # points
CLASSES = ('person', 'car', 'chair', 'tie')  # of COCO: few, so that little training shows
WIDTHS = [32, 64, 128, 160]  # of the maps of the backbone
WIDTH = 48  # of necks and heads
BACKBONE = dict(
    type='hybrid_mm.VAN',
    arch=dict(embed_dims=WIDTHS, depths=[1, 1, 2, 1], mlp_ratios=[2, 2, 3, 3]),
    attention='lska',
    kernel_size=11,
    layer_scale=1.0,
)  # that of the demo, whose weights fit
# widths and depths of the heads of the base files, and those of this script
SMALL = {256: WIDTH, 512: WIDTH, 1024: 128}
SHALLOW = ('num_convs', 'stacked_convs', 'num_shared_convs')
POINTS = {
    'detection': {'coco/bbox_mAP': 100, 'coco/segm_mAP': 100},
    'segmentation': {'mIoU': 1},
    'classification': {'accuracy/top1': 1},
}


@dataclass(frozen=True)
class Row:
    """A model whose metrics are compared.

    Attributes:
        name: Of the head and, if there are several, what is special.
        task: 'detection', 'segmentation' or 'classification'.
        data: Data set: 'coco', 'ade' or 'camvid'.
        base: Model file of ``configs/_base_/models``.
        changes: Settings of the model to be merged.
    """

    name: str
    task: str
    data: str
    base: str
    changes: dict[str, Any]


SLIDE = dict(test_cfg=dict(mode='slide', crop_size=(160, 160), stride=(107, 107)))
NO_MASKS = dict(roi_head=dict(mask_head=None))
NO_SEMANTIC = dict(roi_head=dict(semantic_roi_extractor=None, semantic_head=None))
ROWS = (
    Row('RetinaNet', 'detection', 'coco', 'retinanet_r50_fpn', {}),
    Row('FCOS', 'detection', 'coco', 'fcos_r50_fpn', {}),
    Row('ATSS', 'detection', 'coco', 'atss_r50_fpn', {}),
    Row('GFL', 'detection', 'coco', 'gfl_r50_fpn', {}),
    Row('Faster R-CNN', 'detection', 'coco', 'mask-rcnn_r50_fpn', NO_MASKS),
    Row('Mask R-CNN', 'detection', 'coco', 'mask-rcnn_r50_fpn', {}),
    Row('Cascade Mask R-CNN', 'detection', 'coco', 'cascade-mask-rcnn_r50_fpn', {}),
    Row('HTC', 'detection', 'coco', 'htc_r50_fpn', NO_SEMANTIC),
    Row('Semantic FPN', 'segmentation', 'ade', 'fpn_r50', {}),
    Row('UPerNet', 'segmentation', 'camvid', 'upernet_r50', dict(auxiliary_head=None)),
    Row('Semantic FPN, sliding', 'segmentation', 'camvid', 'fpn_r50', SLIDE),
    Row('classifier', 'classification', 'coco', 'classifier', {}),
)  # fmt: skip


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags of onnx_pairs.py."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='folder of trainings and files')
    for name in ('coco', 'ade', 'camvid'):
        parser.add_argument(f'--{name}', type=Path, metavar='ROOT', help='folder of the data set')
    parser.add_argument('--demo', type=Path, metavar='DIR', help='output of tools/demo.py')
    parser.add_argument('--demo-data', type=Path, default='data/demo', help='its --data')
    parser.add_argument('--iterations', type=int, default=150, help='of trainings (default: 150)')
    parser.add_argument(
        '--images', type=int, default=24, help='number of training images (default: 24)'
    )
    parser.add_argument('--start', metavar='FILE', help="weights of backbone and neck: the demo's")
    parser.add_argument('--only', nargs='+', metavar='NAME', help='rows whose names contain these')
    args = parser.parse_args(argv)
    args.out = args.out.resolve()
    return args


def main(argv: list[str] | None = None) -> int:
    """Compare all rows; the exit status."""
    args = parse_args(argv)
    for name in ('coco', 'ade', 'camvid'):
        if (root := getattr(args, name)) is not None:
            os.environ[f'{name.upper()}_ROOT'] = str(root.resolve())
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for name in MODULES:
        importlib.import_module(name)
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [
        '| model | data | metric | PyTorch | onnxruntime | difference |',
        '|---|---|---|---|---|---|',
    ]
    print(*lines, sep='\n', flush=True)
    good = True
    for name, data, compare in comparisons(args):
        if args.only and not any(part.lower() in name.lower() for part in args.only):
            continue
        try:
            found = compare()
        except RuntimeError as error:
            found, good = [f'| {name} | {data} | {error} | | | |'], False
        else:
            good = good and all(difference <= ALLOWED for *_, difference in found)
            found = [
                f'| {name} | {data} | {metric} | {a:.2f} | {b:.2f} | {difference:.2f} |'
                for metric, a, b, difference in found
            ]
        print(*found, sep='\n', flush=True)
        lines += found
        (args.out / 'pairs.md').write_text('\n'.join(lines) + '\n')
    return 0 if good else 1


def comparisons(args: argparse.Namespace) -> Iterator[tuple[str, str, Callable[[], list]]]:
    """Name, data and function of every row; the function returns metrics and both figures."""
    for row in ROWS:
        if getattr(args, row.data) is not None:
            yield row.name, row.data, functools.partial(trained, row, args)
    if args.demo is not None:
        for name in ('segmenter', 'detector'):
            yield f'demo: {name}', 'shapes', functools.partial(of_demo, name, args)


def trained(row: Row, args: argparse.Namespace) -> list[tuple]:
    """Train a row if it was not, and compare it."""
    folder = args.out / row.name.replace(',', '').replace(' ', '-').lower()
    config, checkpoint = folder / 'config.py', folder / f'iter_{args.iterations}.pth'
    if not checkpoint.exists():
        write_config(row, config, args)
        command('train', folder, config, '--work-dir', folder, '--no-validate')
    return pairs(row.task, folder, config, checkpoint, [])


def of_demo(name: str, args: argparse.Namespace) -> list[tuple]:
    """Compare a model of the demo; its figure in PyTorch must be what its config promises."""
    from mmengine.config import Config

    from hybrid_mm.commands import demo

    config = demo.SEGMENTER if name == 'segmenter' else demo.DETECTOR
    cfg = Config.fromfile(config)
    data = args.demo_data.resolve()
    # one by one: images of several sizes are padded in batches of PyTorch's, not in a file's
    options = [f'test_dataloader.dataset.data_root={data}', 'test_dataloader.batch_size=1']
    if name == 'detector':
        options.append(f'test_evaluator.ann_file={data}/annotations/instances_validation.json')
    checkpoint = args.demo.resolve() / name / f'iter_{cfg.train_cfg.max_iters}.pth'
    task = 'segmentation' if name == 'segmenter' else 'detection'
    found = pairs(task, args.out / f'demo-{name}', config, checkpoint, options)
    for metric, _, measured, _ in found:
        promised = cfg.expected[metric] * POINTS[task][metric]
        if measured < promised:
            raise RuntimeError(f'{metric} {measured:.1f} is below the promised {promised:.1f}')
    return found


def pairs(
    task: str, folder: Path, config: Path, checkpoint: Path, options: list[str]
) -> list[tuple[str, float, float, float]]:
    """Metrics of a checkpoint and of its ONNX file, in points: name, both, difference."""
    file, flags = folder / 'model.onnx', ['--cfg-options', *options] if options else []
    command('export_onnx', folder, config, checkpoint, file)
    measured = []
    for name, model in (
        ('pytorch', [config, checkpoint]),
        ('onnx', [file, '--config', config]),
    ):
        out = folder / f'{name}.json'
        run = [*model, '--work-dir', folder / name, '--out', out, '--out-item', 'metrics']
        command('test', folder, *run, *flags)
        measured.append(json.loads(out.read_text()))
    first, second = measured
    if not any(first.get(key) for key in POINTS[task]):
        raise RuntimeError('the metric is 0: the training was too short to compare anything')
    return [
        (key, unit * first[key], unit * second[key], unit * abs(first[key] - second[key]))
        for key, unit in POINTS[task].items()
        if key in first
    ]


def command(tool: str, folder: Path, *arguments: object) -> None:
    """Run a tool in a fork of this process, its output in a log.

    Raises:
        RuntimeError: It fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f'{tool}.log'
    begun = time.monotonic()
    process = multiprocessing.get_context('fork').Process(
        target=_run, args=(tool, [str(argument) for argument in arguments], log)
    )
    process.start()
    process.join()
    print(f'{folder.name}: {tool} {time.monotonic() - begun:.0f} s', file=sys.stderr, flush=True)
    if process.exitcode:
        last = log.read_text().strip().split('\n')[-1]
        raise RuntimeError(f'{tool} failed ({log}): {last[:300]}')


def _run(tool: str, arguments: list[str], log: Path) -> None:
    with open(log, 'w', buffering=1) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        sys.stdout = sys.stderr = file
        sys.argv = [f'tools/{tool}.py', *arguments]
        try:
            runpy.run_path(str(ROOT / sys.argv[0]), run_name='__main__')
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc(file=file)
            status = 1
        file.flush()
        os._exit(status)


def write_config(row: Row, path: Path, args: argparse.Namespace) -> None:
    """Write the config of a row."""
    from mmengine.config import Config

    package = dict(detection='det', segmentation='seg', classification='cls')[row.task]
    bases = [f'models/{row.base}.py', f'default_runtime_{package}.py']
    if row.task != 'classification':
        masks = 'coco_instance' if _has_masks(row) else 'coco_detection'
        bases.insert(1, f'datasets/{dict(coco=masks, ade="ade20k", camvid="camvid")[row.data]}.py')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'_base_ = {[str(ROOT / "configs/_base_" / base) for base in bases]}\n')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(model=row.changes))
    cfg.model.backbone = BACKBONE
    prepare = dict(detection=_detection, segmentation=_segmentation, classification=_classifier)
    prepare[row.task](cfg, row, args.out)
    if args.start:
        for part, prefix in (('backbone', 'backbone.'), ('neck', 'neck.')):
            if cfg.model.get(part) and cfg.model[part].type in ('FPN', 'hybrid_mm.VAN'):
                start = dict(type='Pretrained', checkpoint=args.start)
                cfg.model[part].init_cfg = dict(start, prefix=prefix)
    if row.task != 'classification':
        cfg.train_dataloader.dataset.indices = args.images
    iterations = args.iterations
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
        # images of several sizes are padded in batches, by which the figures change
        loader.batch_size = 4 if split == 'train' else 1
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=10**6)
    cfg.val_cfg, cfg.test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
    warm_up = iterations // 8
    optimizer = dict(type='AdamW', lr=2e-3, weight_decay=0.05)
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=optimizer, clip_grad=dict(max_norm=10))
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=warm_up),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=warm_up, end=iterations, eta_min=1e-5),
    ]
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=iterations)
    cfg.default_hooks.logger.interval = 10
    cfg.log_processor = dict(by_epoch=False, window_size=10)
    cfg.randomness = dict(seed=0)
    cfg.dump(path)


def _has_masks(row: Row) -> bool:
    return row.changes is not NO_MASKS and ('rcnn' in row.base or 'htc' in row.base)


def _shrink(node: Any, classes: int) -> None:
    """Make the heads of a model narrow and shallow, with another number of classes."""
    for key, value in list(node.items()) if isinstance(node, dict) else enumerate(node):
        if isinstance(value, dict | list | tuple):
            _shrink(value, classes)
        elif isinstance(value, int) and isinstance(key, str):
            if key == 'num_classes':
                node[key] = classes
            elif key in SHALLOW:
                node[key] = min(value, 2)
            elif key.endswith('channels'):
                node[key] = SMALL.get(value, value)


def _detection(cfg: Any, row: Row, out: Path) -> None:
    """Half of the usual size, few classes, and the validation images for training."""
    model = cfg.model
    for key, part in model.items():
        if key not in ('backbone', 'data_preprocessor') and isinstance(part, dict):
            _shrink(part, len(CLASSES))
    model.neck.in_channels, model.neck.norm_cfg = WIDTHS, dict(type='BN')
    if model.get('bbox_head', {}).get('type') in ('FCOSHead', 'ATSSHead', 'GFLHead'):
        model.bbox_head.norm_cfg = dict(type='GN', num_groups=8)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.metainfo = dict(classes=CLASSES)
        for step in dataset.pipeline:
            if step['type'] == 'Resize':
                step['scale'] = (416, 256)
    loader = cfg.train_dataloader
    loader.dataset.update(
        ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/')
    )
    loader.sampler = dict(type='InfiniteSampler', shuffle=True)


def _segmentation(cfg: Any, row: Row, out: Path) -> None:
    """Small crops for training, and small images of ADE20K in tests."""
    model, name = cfg.model, 'validation' if row.data == 'ade' else 'val'
    classes = 150 if row.data == 'ade' else len(cfg.metainfo['classes'])
    for key in ('neck', 'decode_head'):
        if model.get(key):
            _shrink(model[key], classes)
    if model.get('neck'):
        model.neck.in_channels, model.decode_head.in_channels = WIDTHS, [WIDTH] * 4
        model.decode_head.channels = WIDTH
    else:
        model.decode_head.in_channels, model.decode_head.channels = WIDTHS, WIDTH
    model.decode_head.ignore_index = cfg.get('ignore_index', 255)
    model.data_preprocessor.size = (160, 160)
    dataset = cfg.train_dataloader.dataset
    dataset.data_prefix = dict(img_path=f'images/{name}', seg_map_path=f'annotations/{name}')
    for split in ('train', 'val', 'test'):
        for step in cfg[f'{split}_dataloader'].dataset.pipeline:
            if step['type'] == 'RandomCrop':
                step['crop_size'] = (160, 160)
            elif step['type'].endswith('Resize') and row.data == 'ade':
                step['scale'] = (512, 192)


def _classifier(cfg: Any, row: Row, out: Path) -> None:
    """Objects of the detection data, cut out and sorted into folders of classes."""
    root = out / 'objects'
    if not root.exists():
        _cut_out(Path(os.environ['COCO_ROOT']), root)
    cfg.model.head.update(num_classes=len(CLASSES), in_channels=WIDTHS[-1], topk=(1,))
    cfg.model.backbone.out_indices = (3,)
    cfg.model.train_cfg = None
    cfg.model.data_preprocessor = dict(
        num_classes=len(CLASSES),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    )
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=72, edge='short'),
        dict(type='CenterCrop', crop_size=64),
        dict(type='PackInputs'),
    ]
    dataset = dict(type='CustomDataset', data_root=str(root), pipeline=pipeline)
    for split in ('train', 'val', 'test'):
        kind = 'InfiniteSampler' if split == 'train' else 'DefaultSampler'
        cfg[f'{split}_dataloader'] = dict(
            dataset=dataset, sampler=dict(type=kind, shuffle=split == 'train')
        )
    cfg.val_evaluator = cfg.test_evaluator = dict(type='Accuracy', topk=(1,))


def _cut_out(coco: Path, root: Path) -> None:
    """Write the objects of COCO's validation images as images, in a folder for each class."""
    from PIL import Image

    data = json.loads((coco / 'annotations/instances_val2017.json').read_text())
    names = {item['id']: item['name'] for item in data['categories']}
    files = {item['id']: item['file_name'] for item in data['images']}
    for item in data['annotations']:
        x, y, width, height = item['bbox']
        name = names[item['category_id']]
        if name in CLASSES and not item['iscrowd'] and min(width, height) >= 8:
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            with Image.open(coco / 'val2017' / files[item['image_id']]) as image:
                part = image.convert('RGB').crop((int(x), int(y), int(x + width), int(y + height)))
            part.save(folder / f'{item["id"]}.png')


if __name__ == '__main__':
    sys.exit(main())
