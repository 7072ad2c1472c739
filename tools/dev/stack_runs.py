"""Train, test and predict with three configs of each head, in the environment of this Python.

python tools/dev/stack_runs.py --out DIR [--only NAME...]

Needs the OpenMMLab packages and nothing else: pictures are drawn, nothing is downloaded, images are
small. For each config, tools/train.py takes two steps or more and validates, tools/test.py tests
the checkpoint, whose figures must be those of the validation, and tools/predict.py predicts on a
folder. Prints a line for each run; DIR/results.json has figures and versions, DIR/runs/NAME the
logs. NAME is a head (retinanet) or a run (retinanet/van-b0). The exit status is 1 if a run failed.
"""

import argparse
import importlib
import json
import logging
import math
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.random import Generator

ROOT = Path(__file__).resolve().parents[2]
# imported once: every command runs in a fork of the process that has them
MODULES = ('hybrid_mm', 'mmdet.models', 'mmdet.datasets', 'mmdet.evaluation')  # ours first, for B5
MODULES += ('mmseg.models', 'mmseg.datasets', 'mmpretrain.models', 'mmpretrain.datasets')
# where the name is not the module's
DISTRIBUTIONS = {'mmdet': 'mmdetection', 'mmseg': 'mmsegmentation'}
WIDTH, HEIGHT = 128, 96  # of the pictures
NUMBERS = {'train': 4, 'val': 2}
SMALLEST = 64  # side of an image
STACK = ('torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
LIMIT = 600  # seconds for one command

CONFIGS = {
    'retinanet/van-b0': 'van/retinanet_van-b0_fpn_1x_coco.py',
    'retinanet/pvt-t-acmix': 'acmix/retinanet_pvt-t-acmix_fpn_1x_coco.py',
    'retinanet/sasa-r50': 'sasa/retinanet-sasa_sasa-r50_fpn_8xb8-150e_coco.py',
    'mask-rcnn/r50-gcb': 'gcnet/mask-rcnn_r50-syncbn-gcb-r16-c3-c5_fpn_1x_coco.py',
    'mask-rcnn/van-lska-tiny': 'lska/mask-rcnn_van-lska-tiny_fpn_1x_coco.py',
    'mask-rcnn/mvitv2-tiny': 'mvitv2/mask-rcnn_mvitv2-tiny_fpn_8xb8-ms-crop-3x_coco.py',
    'cascade/nat-mini': 'nat/cascade-mask-rcnn_nat-mini_fpn_4conv1fc-giou_ms-crop-3x_coco.py',
    'cascade/pelk-tiny': 'pelk/cascade-mask-rcnn_pelk-tiny_fpn_4conv1fc-giou_ms-crop-3x_coco.py',
    'cascade/elsa-swin-t': (
        'elsa/cascade-mask-rcnn_elsa-swin-t_fpn_4conv1fc-giou_ms-crop-1x_coco.py'
    ),
    'upernet/hornet-tiny-gf': 'hornet/hornet-tiny-gf_upernet_8xb2-160k_ade20k-512x512.py',
    'upernet/qna-tiny': 'qna/qna-tiny_upernet_8xb2-160k_ade20k-512x512.py',
    'upernet/ea-aa-r50': 'evolving_attention/ea-aa-r50_upernet_4xb4-160k_ade20k-512x512.py',
    'semantic-fpn/van-b0': 'van/van-b0_fpn_8xb4-40k_ade20k-512x512.py',
    'semantic-fpn/san10-acmix': 'acmix/san10-acmix_fpn_4xb4-80k_ade20k-512x512.py',
    'semantic-fpn/levit-128s': 'levit/levit-128s_fpn_4xb4-80k_ade20k-512x512.py',
    'classifier/van-b1': 'van/van-b1_8xb128_in1k.py',
    'classifier/slak-tiny': 'slak/slak-tiny_32xb128-120e_in1k.py',
    'classifier/maxvit-tiny': 'maxvit/maxvit-tiny_32xb128-300e_in1k.py',
    'mask2former/semantic': 'dinat/mask2former_dinat-large-k11_8xb2-160k_ade20k-640x640.py',
    'mask2former/instance': 'dinat/mask2former_dinat-large-k11_8xb2-lsj-100e_coco.py',
    'mask2former/things': (
        'dinat/mask2former_dinat-large-k11_8xb2-160k_ade20k-instance-640x640.py'
    ),
}


class RunError(Exception):
    """What is wrong with a run."""


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', required=True, type=Path, metavar='DIR', help='new folder')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='heads or runs (default: all)')
    parser.add_argument('--jobs', type=int, default=min(2, os.cpu_count() or 1), help='at once')
    args = parser.parse_args(argv)
    names = chosen(args.only) if args.only else list(CONFIGS)
    unknown = [name for name in args.only or () if not chosen([name])]
    if unknown:
        parser.error(f'--only {" ".join(unknown)}: names are {", ".join(CONFIGS)}')
    out = args.out.resolve()
    if out.exists() and any(out.iterdir()):
        parser.error(f'--out {args.out}: the folder is not empty')

    os.environ['OMP_NUM_THREADS'] = '1'
    for module in MODULES:
        importlib.import_module(module)
    draw(out / 'data')
    os.environ |= {
        'COCO_ROOT': str(out / 'data/coco'),
        'ADE_ROOT': str(out / 'data/ade'),
        'IMAGENET_ROOT': str(out / 'data/imagenet'),
    }
    results = {}
    fork = multiprocessing.get_context('fork')
    with ProcessPoolExecutor(args.jobs, mp_context=fork) as pool:
        waiting = {pool.submit(run, name, out / 'runs' / name): name for name in names}
        for done in as_completed(waiting):
            name = waiting[done]
            results[name] = result = done.result()
            print(f'{result["status"]} {name} {result["seconds"]:.0f}', flush=True)
            if 'error' in result:
                print(f'    {result["error"]}', flush=True)
    report = dict(python=sys.version.split()[0], packages=versions(), runs=results)
    (out / 'results.json').write_text(json.dumps(report, indent=2) + '\n')
    failed = [name for name in names if results[name]['status'] != 'PASS']
    print(f'{len(names) - len(failed)} of {len(names)} passed; {out / "results.json"}')
    return 1 if failed else 0


def chosen(names: list[str]) -> list[str]:
    """The runs of that name or head."""
    return [name for name in CONFIGS if name in names or name.partition('/')[0] in names]


def versions() -> dict[str, str]:
    """Installed distributions, by module."""
    found = {}
    for module in STACK:
        distribution = DISTRIBUTIONS.get(module, module)
        for name in (module, distribution, f'onedl-{distribution}'):
            try:
                found[module] = f'{name} {metadata.version(name)}'
            except metadata.PackageNotFoundError:
                continue
    return found


# ---------------------------------------------------------------------------------------- a run


def run(name: str, folder: Path) -> dict[str, Any]:
    """Train, test and predict with one config, each in a process of its own.

    Returns:
        ``status`` (PASS or FAIL), ``seconds``, and as far as it got ``loss`` (of the last step),
        ``figures`` and ``commands`` (seconds of each); ``error`` if it failed.
    """
    began = time.monotonic()
    result: dict[str, Any] = dict(config=f'configs/{CONFIGS[name]}', commands={})
    try:
        _run(name, folder, result)
        result['status'] = 'PASS'
    except RunError as error:
        result |= dict(status='FAIL', error=str(error))
    except Exception as error:
        result |= dict(status='FAIL', error=f'{type(error).__name__}: {error}')
    result['seconds'] = round(time.monotonic() - began, 1)
    return result


def _run(name: str, folder: Path, result: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    config = folder / 'config.py'
    logging.disable(logging.INFO)  # MMEngine reports what it reads of the environment
    scope, last = write_config(ROOT / 'configs' / CONFIGS[name], config)
    logging.disable(logging.NOTSET)
    images = Path(os.environ['COCO_ROOT']) / 'val2017'
    commands = {
        'train': ('train.py', config, '--work-dir', folder / 'train'),
        'test': ('test.py', config, folder / 'train' / last, '--work-dir', folder / 'test'),
        'predict': ('predict.py', config, folder / 'train' / last, images),
    }
    commands['test'] += ('--show-dir', folder / 'shown')
    commands['predict'] += ('--out', folder / 'predictions')
    for command, (tool, *arguments) in commands.items():
        began = time.monotonic()
        call(ROOT / 'tools' / tool, [str(a) for a in arguments], folder / f'{command}.log')
        result['commands'][command] = round(time.monotonic() - began, 1)
        if command == 'train':
            result['loss'] = loss_of(folder / 'train')
            validated = figures_in(folder / 'train')
        elif command == 'test':
            result['figures'] = tested = figures_in(folder / 'test')
            if not tested or not same(tested, validated):
                raise RunError(f'test.py finds {tested}, the validation {validated}')
            if not any(path.suffix in ('.png', '.jpg') for path in folder.glob('shown/**/*')):
                raise RunError('test.py --show-dir draws nothing')
    entries = json.loads((folder / 'predictions/predictions.json').read_text())
    pictures = list((folder / 'predictions/pictures').iterdir())
    if len(pictures) != NUMBERS['val'] or (scope != 'mmdet' and len(entries) != NUMBERS['val']):
        raise RunError(f'{len(pictures)} pictures and {len(entries)} entries of predictions')


def call(tool: Path, argv: list[str], log: Path) -> None:
    """Run a tool in a fork of this process, with a log.

    Raises:
        RunError: It failed, with its last line, or took longer than ``LIMIT``.
    """
    process = multiprocessing.get_context('fork').Process(target=_work, args=(tool, argv, log))
    process.start()
    process.join(LIMIT)
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        raise RunError(f'{tool.name} took more than {LIMIT} s: {log}')
    if process.exitcode:
        lines = [line for line in log.read_text(errors='replace').splitlines() if line.strip()]
        raise RunError(f'{tool.name} ({process.exitcode}): {lines[-1] if lines else ""} ({log})')


def _work(tool: Path, argv: list[str], log: Path) -> None:
    """What ``python TOOL ARGV`` does, except for importing."""
    os.setsid()
    with log.open('wb') as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.argv = [str(tool), *argv]
    sys.path.insert(0, str(tool.parent))
    runpy.run_path(str(tool), run_name='__main__')


def records_in(work_dir: Path) -> Iterator[dict[str, Any]]:
    """Give what a run of MMEngine logged, in order; a test logs to a file of its own."""
    for path in sorted(work_dir.glob('*/*.json')) + sorted(
        work_dir.glob('*/vis_data/scalars.json')
    ):
        for line in path.read_text().splitlines():
            yield json.loads(line)


def loss_of(work_dir: Path) -> float:
    """Loss of the last step, which must be finite."""
    losses = [record['loss'] for record in records_in(work_dir) if 'loss' in record]
    if not losses or not all(map(math.isfinite, losses)):
        raise RunError(f'losses {losses} in {work_dir}')
    return losses[-1]


def figures_in(work_dir: Path) -> dict[str, float]:
    """Figures of the last validation or test."""
    found: dict[str, float] = {}
    for record in records_in(work_dir):
        if 'loss' not in record:
            found = {
                key: value
                for key, value in record.items()
                if isinstance(value, (int, float)) and key not in ('step', 'time', 'data_time')
            }
    return found


def same(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether two tables agree."""
    return one.keys() == other.keys() and all(
        math.isclose(one[key], other[key], abs_tol=1e-3)
        or (math.isnan(one[key]) and math.isnan(other[key]))
        for key in one
    )


# ------------------------------------------------------------------------------------- a config


def write_config(source: Path, target: Path) -> tuple[str, str]:
    """Write a config that differs from another in sizes, numbers and lengths.

    Returns:
        Its scope, and the name of the checkpoint that it leaves.
    """
    from mmengine.config import Config

    cfg = Config.fromfile(source)
    epochs = cfg.train_cfg.get('type') == 'EpochBasedTrainLoop' or cfg.train_cfg.get('by_epoch')
    cfg.train_cfg.pop('dynamic_intervals', None)
    cfg.train_cfg.update({'max_epochs' if epochs else 'max_iters': 1 if epochs else 2})
    cfg.train_cfg.val_interval = cfg.default_hooks.checkpoint.interval = 1 if epochs else 2
    cfg.default_hooks.logger.interval = 1
    cfg.randomness = dict(seed=0)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].update(batch_size=2, num_workers=0, persistent_workers=False)
        shrink(cfg[loader])
    for part in (cfg.model, cfg.model.get('backbone', {}), cfg.model.get('neck') or {}):
        part.pop('init_cfg', None)
    shrink(cfg.model.data_preprocessor)
    fewer_boxes(cfg.model)
    if cfg.model.backbone.type == 'hybrid_mm.DiNAT' and cfg.model.backbone.arch == 'large':
        cfg.model.backbone.update(arch='mini', kernel_size=7)
        head = cfg.model.get('panoptic_head') or cfg.model.decode_head
        head.in_channels = [64, 128, 256, 512]
    cfg.dump(target)
    return cfg.default_scope, 'epoch_1.pth' if epochs else 'iter_2.pth'


_LEAST = dict(score_thr=0.0, nms_pre=100, max_per_img=50, num=32)


def fewer_boxes(node: Any) -> None:
    """Let a detector consider few boxes, and keep those of an untrained one, whose scores are low.

    ``num`` is that of the samplers, which train a head on so many boxes of an image.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _LEAST and isinstance(value, (int, float)):
                node[key] = min(value, _LEAST[key])
            else:
                fewer_boxes(value)
    elif isinstance(node, (list, tuple)):
        for item in node:
            fewer_boxes(item)


_SIDES = {'scale', 'scales', 'crop_size', 'size', 'img_scale'}


def shrink(node: Any) -> None:
    """Divide the sizes of images in a part of a config by 8; ``SMALLEST`` is the least."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _SIDES and isinstance(value, (int, list, tuple)):
                node[key] = _eighth(value)
            else:
                shrink(value)
    elif isinstance(node, (list, tuple)):
        for item in node:
            shrink(item)


def _eighth(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_eighth(item) for item in value)
    return max(SMALLEST, int(value) // 8) if value > SMALLEST else value


# ---------------------------------------------------------------------------------- the pictures


def draw(root: Path) -> None:
    """Draw data in the layouts of COCO, ADE20K and ImageNet: rectangles on noise."""
    import cv2
    import numpy as np
    from mmdet.datasets import ADE20KInstanceDataset, CocoDataset

    coco, ade, imagenet = root / 'coco', root / 'ade', root / 'imagenet'
    for folder in (coco / 'annotations', ade):
        folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, number in NUMBERS.items():
        long = {'train': 'training', 'val': 'validation'}[split]
        places = [coco / f'{split}2017', ade / 'images' / long, ade / 'annotations' / long]
        for place in places:
            place.mkdir(parents=True)
        images, annotations = [], []
        for i in range(number):
            picture, labels, objects = _picture(rng)
            name = f'{i:012}.jpg'
            for place in places[:2]:
                cv2.imwrite(str(place / name), picture)
            cv2.imwrite(str(places[2] / name.replace('.jpg', '.png')), labels)
            images.append(dict(id=i, file_name=name, width=WIDTH, height=HEIGHT))
            for item in objects:
                annotations.append(dict(id=len(annotations) + 1, image_id=i, iscrowd=0, **item))
        for classes, path in (
            (CocoDataset.METAINFO['classes'], coco / f'annotations/instances_{split}2017.json'),
            (ADE20KInstanceDataset.METAINFO['classes'], ade / f'ade20k_instance_{split}.json'),
        ):
            categories = [dict(id=n, name=name) for n, name in enumerate(classes, 1)]
            data = dict(images=images, annotations=annotations, categories=categories)
            path.write_text(json.dumps(data))
        for i in range(1000):  # a folder for every class
            place = imagenet / split / f'n{i:08}'
            place.mkdir(parents=True)
            if i < number:
                (place / '0.jpg').write_bytes((places[0] / f'{i:012}.jpg').read_bytes())


def _picture(rng: 'Generator') -> tuple[Any, Any, list[dict[str, Any]]]:
    """Picture, label map and objects: one of each of three classes."""
    import numpy as np

    picture = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    labels = np.full((HEIGHT, WIDTH), 4, np.uint8)
    objects = []
    for label in range(3):
        w, h = (int(v) for v in rng.integers(34, 42, 2))
        x, y = label * 42 + int(rng.integers(0, 42 - w + 1)), int(rng.integers(0, HEIGHT - h))
        picture[y : y + h, x : x + w] += np.eye(3, dtype=np.uint8)[label] * 180
        labels[y : y + h, x : x + w] = label + 1
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        objects.append(
            dict(category_id=label + 1, bbox=[x, y, w, h], area=w * h, segmentation=[corners])
        )
    return picture, labels, objects


if __name__ == '__main__':
    sys.exit(main())
