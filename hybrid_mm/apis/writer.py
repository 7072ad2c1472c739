"""Write predictions as pictures, videos, label maps and COCO results."""

import json
from pathlib import Path

import cv2
import mmcv
import numpy as np

from hybrid_mm.apis.predictor import Predictor
from hybrid_mm.apis.results import Classification, Detection, Prediction, Segmentation
from hybrid_mm.errors import UserError, shorten


class Writer:
    """Writes results to a folder; a context manager.

    Files are a picture for each image in ``OUT/pictures/``, a video for each video in
    ``OUT/videos/``, and a list in ``OUT/predictions.json``. For a detector the list has COCO's
    results format, with masks as compressed run lengths: ``COCO.loadRes`` of pycocotools reads it.

    Args:
        predictor: Predictor of the results.
        out: Folder of the results.
        threshold: Lowest score of an object that is drawn and written.
        annotations: COCO annotation file: ``image_id`` and ``category_id`` are those of its images
            (by file name) and categories (by name). Without it they are the position of the image
            among the inputs and the label, both from 0.

    Raises:
        UserError: (a ValueError) The annotation file cannot be read or lacks a class.
    """

    def __init__(
        self,
        predictor: Predictor,
        out: str | Path,
        threshold: float = 0.3,
        annotations: str | Path | None = None,
    ):
        self.predictor, self.out, self.threshold = predictor, Path(out), threshold
        self.ids = None if annotations is None else _Ids(Path(annotations), predictor.classes)
        self.entries: list[dict] = []
        self._video: tuple[str, cv2.VideoWriter] | None = None
        self.out.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> 'Writer':
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def add(self, prediction: Prediction) -> None:
        """Write the picture or frame of a result, and keep its entries for ``predictions.json``."""
        drawn = self.predictor.draw(prediction, self.threshold)
        if prediction.frame is None:
            mmcv.imwrite(drawn, str(self.out / 'pictures' / f'{prediction.name}.png'))
        else:
            self._add_frame(prediction, drawn)
        if isinstance(prediction, Detection):
            self.entries += self._objects(prediction.above(self.threshold))
        elif isinstance(prediction, Segmentation):
            self.entries.append(self._shares(prediction))
        elif isinstance(prediction, Classification):
            top = [dict(category_name=n, score=round(s, 5)) for n, s in prediction.top(5)]
            self.entries.append(dict(**_place(prediction), top5=top))

    def close(self) -> None:
        """Write ``predictions.json`` and finish the last video."""
        self._end_video()
        (self.out / 'predictions.json').write_text(json.dumps(self.entries, indent=1))

    def _add_frame(self, prediction: Prediction, drawn: np.ndarray) -> None:
        if self._video is None or self._video[0] != prediction.name or prediction.frame == 0:
            self._end_video()
            path = (self.out / 'videos' / prediction.name).with_suffix('.mp4')
            path.parent.mkdir(parents=True, exist_ok=True)
            size = (drawn.shape[1], drawn.shape[0])
            codec = cv2.VideoWriter_fourcc(*'mp4v')
            video = cv2.VideoWriter(str(path), codec, prediction.fps, size)
            if not video.isOpened():
                raise UserError(f'OpenCV cannot write the video {path} of {size[0]} x {size[1]}')
            self._video = prediction.name, video
        self._video[1].write(drawn)

    def _end_video(self) -> None:
        if self._video is not None:
            self._video[1].release()
            self._video = None

    def _shares(self, prediction: Segmentation) -> dict:
        name = prediction.name
        name += '' if prediction.frame is None else f'/{prediction.frame:06d}'
        path = self.out / 'label_maps' / f'{name}.png'
        dtype = np.uint8 if len(prediction.classes) <= 256 else np.uint16
        mmcv.imwrite(prediction.label_map.astype(dtype), str(path))
        shares = {k: round(v, 6) for k, v in prediction.shares().items()}
        return dict(
            **_place(prediction), label_map=path.relative_to(self.out).as_posix(), shares=shares
        )

    def _objects(self, found: Detection) -> list[dict]:
        image_id = found.index if self.ids is None else self.ids.image(found.name)
        entries = []
        for i in range(len(found)):
            x1, y1, x2, y2 = (round(v, 2) for v in found.boxes[i].tolist())
            name = found.classes[found.labels[i]]
            entry = dict(
                image_id=image_id,
                **_place(found),
                category_id=int(found.labels[i]) if self.ids is None else self.ids.categories[name],
                category_name=name,
                bbox=[x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                score=round(float(found.scores[i]), 5),
            )
            if found.masks is not None:
                entry['segmentation'] = run_lengths(found.masks[i])
            entries.append(entry)
        return entries


class _Ids:
    """Ids of images and categories in a COCO annotation file."""

    def __init__(self, path: Path, classes: tuple[str, ...]):
        try:
            data = json.loads(path.read_text())
            self.images = {image['file_name']: image['id'] for image in data['images']}
            self.categories = {item['name']: item['id'] for item in data['categories']}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f'annotations {path} cannot be read as a COCO file: {error}') from error
        self.path = path
        absent = [name for name in classes if name not in self.categories]
        if absent:
            raise UserError(
                f'{path} has no categories {shorten(absent)}, which the model predicts; it has '
                f'{shorten(list(self.categories))}'
            )

    def image(self, name: str) -> int:
        """Id of an image by its name, or by the last part of it if that is unique."""
        if name in self.images:
            return self.images[name]
        last = name.rpartition('/')[2]
        ends = [i for n, i in self.images.items() if n.rpartition('/')[2] == last]
        if len(ends) != 1:
            many = 'several images' if ends else 'no image'
            raise UserError(f'{many} of {self.path} have the name of {name}')
        return ends[0]


def _place(prediction: Prediction) -> dict:
    frame = {} if prediction.frame is None else dict(frame=prediction.frame)
    return dict(file_name=prediction.name, **frame)


def run_lengths(mask: np.ndarray) -> dict:
    """Encode a mask (H, W) as COCO's compressed run lengths."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=list(rle['size']), counts=rle['counts'].decode())
