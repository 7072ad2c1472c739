"""Figures of the demo: ground truth next to predictions, and curves of losses and metrics."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hybrid_mm.analysis.curves import read_records
from hybrid_mm.data import shapes
from hybrid_mm.run.predictions import read_predictions

INK, PAPER = '#202024', 'white'


def _pyplot():
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    pyplot.rcParams.update({'font.size': 9, 'axes.titlesize': 10, 'figure.facecolor': PAPER})
    return pyplot


def _validation(root):
    with open(Path(root) / 'annotations' / 'instances_validation.json') as file:
        coco = json.load(file)
    truth = {image['id']: [] for image in coco['images']}
    for annotation in coco['annotations']:
        truth[annotation['image_id']].append(annotation)
    return coco['images'], truth


def _image(root, name):
    from PIL import Image

    return np.asarray(Image.open(Path(root) / 'images' / 'validation' / name))


def _grid(pyplot, rows, columns, titles, headline, width):
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(width, width / columns * rows * 1.04 + 0.7), squeeze=False
    )
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, color=INK, weight='bold')
    for axis in axes.flat:
        axis.set_axis_off()
        axis.set_anchor('N')
    figure.suptitle(headline, color=INK, fontsize=11)
    return figure, axes


def _legend(pyplot, figure, names, palette):
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=np.array(rgb) / 255, edgecolor=INK, label=name)
        for name, rgb in zip(names, palette, strict=True)
    ]
    figure.legend(handles=handles, loc='lower center', ncol=len(names), frameon=False)


def _show_instances(axis, image, found):
    """Draw masks, boxes and labels over a darkened image.

    ``found`` holds (label, score or None, (x1, y1, x2, y2), mask (H, W)).
    """
    found = sorted(found, key=lambda item: -item[3].sum())  # small objects on top
    order = np.zeros(image.shape[:2], int)
    for number, (*_, mask) in enumerate(found, start=1):
        order[mask] = number
    canvas = image.astype(float) * 0.55
    for number, (label, *_) in enumerate(found, start=1):
        mask = order == number
        canvas[mask] = 0.35 * image[mask] + 0.65 * np.array(shapes.PALETTE[label])
    axis.imshow(np.clip(canvas, 0, 255).astype(np.uint8), interpolation='nearest')
    height, width = image.shape[:2]
    for number, (label, score, (x1, y1, x2, y2), _) in enumerate(found, start=1):
        colour = np.array(shapes.PALETTE[label]) / 255
        if (order == number).any():
            axis.contour(order == number, levels=[0.5], colors=['white'], linewidths=0.8)
        axis.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour, linewidth=1.3)
        text = shapes.CLASSES[label] + ('' if score is None else f' {100 * score:.0f}')
        axis.text(
            np.clip(x1, 0, width - 34),
            np.clip(y1 - 1, 7, height),
            text,
            fontsize=7,
            color=INK,
            va='bottom',
            bbox=dict(facecolor=colour, edgecolor='none', pad=0.8, alpha=0.9),
        )
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


def draw_detections(root, predictions, path, count: int = 6, threshold: float = 0.5) -> None:
    """Draw the first validation images with true and predicted boxes, masks and labels.

    Args:
        root: Folder of the data set.
        predictions: Pickle that ``tools/test.py CONFIG CHECKPOINT --out FILE`` wrote.
        path: PNG to write.
        count: Number of images, even.
        threshold: Lowest score drawn.
    """
    from pycocotools import mask as rle

    pyplot = _pyplot()
    images, truth = _validation(root)
    by_id = {item['img_id']: item['pred_instances'] for item in read_predictions(predictions)}
    figure, axes = _grid(
        pyplot,
        count // 2,
        4,
        ['ground truth', 'prediction'] * 2,
        f'The first {count} validation pictures; scores from {100 * threshold:.0f} per cent',
        13,
    )
    for image_info, (left, right) in zip(images, axes.reshape(-1, 2)[:count], strict=False):
        image = _image(root, image_info['file_name'])
        true = []
        for annotation in truth[image_info['id']]:
            x, y, w, h = annotation['bbox']
            mask = rle.decode(annotation['segmentation']).astype(bool)
            true.append((annotation['category_id'] - 1, None, (x, y, x + w, y + h), mask))
        _show_instances(left, image, true)
        found = by_id[image_info['id']]
        _show_instances(
            right,
            image,
            [
                (int(label), float(score), np.asarray(box), rle.decode(mask).astype(bool))
                for label, score, box, mask in zip(
                    found['labels'], found['scores'], found['bboxes'], found['masks'], strict=True
                )
                if score >= threshold
            ],
        )
    figure.tight_layout(rect=(0, 0, 1, 0.99), h_pad=1.0)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_segmentations(root, predictions, path, count: int = 6) -> None:
    """Draw the first validation images with true and predicted label maps.

    Args:
        root: Folder of the data set.
        predictions: Folder that ``tools/test.py CONFIG CHECKPOINT --out FOLDER`` wrote.
        path: PNG to write.
        count: Number of images, even.
    """
    from PIL import Image

    pyplot = _pyplot()
    images, _ = _validation(root)
    figure, axes = _grid(
        pyplot,
        count // 2,
        6,
        ['picture', 'ground truth', 'prediction'] * 2,
        f'The first {count} validation pictures',
        13,
    )
    palette = np.array([(0, 0, 0), *shapes.SEG_PALETTE], np.uint8)  # 0 is unlabelled
    for image_info, row in zip(images, axes.reshape(-1, 3)[:count], strict=False):
        name = image_info['file_name']
        maps = (Path(root) / 'annotations' / 'validation' / name, Path(predictions) / name)
        row[0].imshow(_image(root, name))
        for axis, file in zip(row[1:], maps, strict=True):
            axis.imshow(palette[np.asarray(Image.open(file))], interpolation='nearest')
    _legend(pyplot, figure, shapes.SEG_CLASSES, shapes.SEG_PALETTE)
    figure.tight_layout(rect=(0, 0.04, 1, 0.99), h_pad=1.0)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_curves(folders: Mapping[str, Path], path) -> None:
    """Draw losses and validation metrics over the iterations.

    Args:
        folders: Work dirs by the name of the model.
        path: PNG to write.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(2, len(folders), figsize=(6 * len(folders), 7), squeeze=False)
    for (name, folder), (upper, lower) in zip(folders.items(), axes.T, strict=True):
        # over all runs in the folder: the demo may have been interrupted
        files = sorted(Path(folder).glob('*/vis_data/scalars.json'))
        lines = [record for file in files for record in read_records(file)]
        lines.sort(key=lambda line: line.get('iter', line['step']))
        training = [line for line in lines if 'loss' in line]
        parts = sorted({key for line in training for key in line if 'loss' in key})
        if len(parts) == 2:  # the total loss and its only part
            parts = ['loss']
        for key in parts:
            points = [(line['iter'], line[key]) for line in training if key in line]
            width = 2.2 if key == 'loss' else 1.1
            upper.plot(*zip(*points, strict=True), label=key, linewidth=width)
        upper.set_title(f'{name}: training loss')
        upper.set_yscale('log')
        metrics = {}
        for line in lines:
            for key, value in line.items():
                if key in ('mIoU', 'mAcc', 'aAcc'):
                    metrics.setdefault(key, []).append((line['step'], value))
                elif key.endswith(('bbox_mAP', 'segm_mAP', 'bbox_mAP_50', 'segm_mAP_50')):
                    label = key.removeprefix('coco/').replace('bbox', 'box').replace('segm', 'mask')
                    label = label.replace('_', ' ')
                    metrics.setdefault(label, []).append((line['step'], 100 * value))
        for key, points in metrics.items():
            lower.plot(*zip(*points, strict=True), 'o-', label=f'{key} {points[-1][1]:.1f}')
        lower.set_title(f'{name}: metrics on the validation split')
        lower.set_ylabel('per cent')
        lower.set_ylim(0, 100)
        for axis in (upper, lower):
            axis.set_xlabel('iteration')
            axis.grid(alpha=0.3)
            axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
