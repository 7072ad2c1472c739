"""Prediction on files, alike for detectors, segmenters and classifiers."""

import json
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, VISUALIZERS, DefaultScope, init_default_scope
from mmengine.structures import BaseDataElement

from hybrid_mm.engine.checkpoint import load_weights, read_checkpoint, without_init_cfg
from hybrid_mm.engine.cli import UserError, task_of, torch_device
from hybrid_mm.engine.preflight import dataset_classes, inner_dataset


class Predictor:
    """A model with its weights and its test pipeline.

    Args:
        cfg: Config of the model; the test pipeline is that of its ``test_dataloader``.
        checkpoint: File that fits the model strictly.
        device: Name of a torch device; by default the first GPU if there is one.

    Raises:
        UserError: the checkpoint does not fit, or there is no such device.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str | None = None):
        self.cfg, self.task = cfg, task_of(cfg)
        self.device = torch_device(device)
        init_default_scope(cfg.default_scope)
        weights = read_checkpoint(checkpoint)
        model = revert_sync_batchnorm(MODELS.build(without_init_cfg(cfg.model)))
        load_weights(model, weights, checkpoint)
        self.model = model.to(self.device).eval()
        self.meta = self._meta(weights)
        steps = inner_dataset(cfg.test_dataloader.dataset).pipeline
        self.pipeline = Compose([step for step in steps if 'Annotation' not in step['type']])

    def _meta(self, weights: dict) -> dict:
        """Class names and palette: of the checkpoint, else of the config's data set."""
        trained = (weights.get('meta') or {}).get('dataset_meta') or {}
        with DefaultScope.overwrite_default_scope(self.cfg.default_scope):
            meta = {**dataset_classes(self.cfg.test_dataloader.dataset), **trained}
        if not meta.get('classes'):
            raise UserError(
                'neither the checkpoint nor the config names the classes; use --cfg-options '
                'test_dataloader.dataset.metainfo.classes=a,b,...'
            )
        return meta

    def load(self, file: Path) -> dict:
        """Read and prepare an image."""
        return self.pipeline(dict(img_path=str(file), img_id=0))

    @torch.no_grad()
    def predict(self, batch: list[dict]) -> list[BaseDataElement]:
        """Predict on prepared images; the results are on the CPU."""
        return [sample.cpu() for sample in self.model.test_step(pseudo_collate(batch))]


class Writer:
    """Pictures, label maps and ``predictions.json`` of a run of predictions.

    Args:
        predictor: What predicts.
        out: Folder of the results.
        root: Folder to which the names in the results are relative.
        threshold: Lowest score of an object.
    """

    def __init__(self, predictor: Predictor, out: str, root: Path, threshold: float):
        self.task, self.classes = predictor.task, list(predictor.meta['classes'])
        self.out, self.root, self.threshold = Path(out), root, threshold
        self.entries: list[dict] = []
        self.out.mkdir(parents=True, exist_ok=True)
        spec = {k: v for k, v in predictor.cfg.visualizer.items() if k != 'vis_backends'}
        self.visualizer = VISUALIZERS.build(dict(name='predictions') | spec)
        self.visualizer.dataset_meta = predictor.meta

    def add(self, number: int, file: Path, sample: BaseDataElement) -> None:
        """Write the picture of an image and keep its entries."""
        name = file.relative_to(self.root).as_posix()
        picture = str(self.out / 'pictures' / f'{name}.png')
        image = mmcv.imread(str(file), channel_order='rgb')
        if self.task == 'classification':
            self.visualizer.visualize_cls(
                image, sample, classes=self.classes, draw_gt=False, out_file=picture
            )
            self.entries.append(dict(file_name=name, top5=self._top5(sample)))
            return
        extra = dict(pred_score_thr=self.threshold) if self.task == 'detection' else {}
        self.visualizer.add_datasample(
            name, image, sample, draw_gt=False, out_file=picture, **extra
        )
        if self.task == 'segmentation':
            self.entries.append(self._shares(name, sample))
        else:
            self.entries += self._objects(number, name, sample)

    def close(self) -> None:
        """Write ``predictions.json``."""
        (self.out / 'predictions.json').write_text(json.dumps(self.entries, indent=1))

    def _top5(self, sample) -> list[dict]:
        scores = sample.pred_score
        values, labels = scores.topk(min(5, len(scores)))
        pairs = zip(values.tolist(), labels.tolist(), strict=True)
        return [dict(category_name=self.classes[i], score=round(v, 5)) for v, i in pairs]

    def _shares(self, name: str, sample) -> dict:
        labels = sample.pred_sem_seg.data[0].numpy()
        path = self.out / 'label_maps' / f'{name}.png'
        kind = np.uint8 if len(self.classes) <= 256 else np.uint16
        mmcv.imwrite(labels.astype(kind), str(path))
        values, counts = np.unique(labels, return_counts=True)
        order = np.argsort(-counts)
        shares = {self.classes[values[i]]: round(counts[i] / labels.size, 6) for i in order}
        return dict(file_name=name, label_map=str(path.relative_to(self.out)), shares=shares)

    def _objects(self, number: int, name: str, sample) -> list[dict]:
        found = sample.pred_instances
        found = found[found.scores >= self.threshold]
        entries = []
        for i in range(len(found)):
            x1, y1, x2, y2 = (round(v, 2) for v in found.bboxes[i].tolist())
            label = int(found.labels[i])
            entry = dict(
                image_id=number,
                file_name=name,
                category_id=label,
                category_name=self.classes[label],
                bbox=[x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                score=round(float(found.scores[i]), 5),
            )
            if 'masks' in found:
                entry['segmentation'] = _rle(found.masks[i].numpy())
            entries.append(entry)
        return entries


def _rle(mask: np.ndarray) -> dict:
    """COCO's compressed run lengths of a mask (H, W)."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask.squeeze().astype(np.uint8)))
    return dict(size=list(rle['size']), counts=rle['counts'].decode())
