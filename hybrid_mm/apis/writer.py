"""Write predictions as pictures, videos, label maps and COCO results."""

import contextlib
import itertools
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np

from hybrid_mm.apis.predictor import Predictor
from hybrid_mm.apis.results import Classification, Detection, Prediction, Segmentation
from hybrid_mm.apis.sources import VIDEO_SUFFIXES, plain_path
from hybrid_mm.data.channel_files import ARRAY
from hybrid_mm.data.images import IMAGE_SUFFIXES, RESULTS_FILE, RESULTS_FOLDERS
from hybrid_mm.engine.atomic_files import write_atomically
from hybrid_mm.errors import UserError, shorten, warn
from hybrid_mm.run.outputs import check_output_folder, writing

SUFFIXES = {'.png': (*IMAGE_SUFFIXES, ARRAY), '.mp4': VIDEO_SUFFIXES}
"""Suffixes of what is written, and those of inputs that they replace."""


class Writer:
    """Writes results to a folder; a context manager.

    Files are a picture for each image in ``OUT/pictures/``, for a segmenter its label map in
    ``OUT/label_maps/``, a video for each video in ``OUT/videos/``, and a list in
    ``OUT/predictions.json``, which is also written if an error or Ctrl-C ends the work and names
    the other files. For a detector the list has COCO's results format, with masks as compressed
    run lengths: ``COCO.loadRes`` of pycocotools reads it. Rotated boxes also have their four
    ``corners`` (x1, y1, ..., x4, y4); their ``bbox`` is the upright one around these.

    The files of ``sub/x.jpg`` are called ``sub/x.png``. Every input has files of its own: of
    inputs that :meth:`announce` names, ``x.jpg`` and ``x.bmp`` get ``x.jpg.png`` and
    ``x.bmp.png``; of others the second gets such a name or a number, and a warning says so.

    Args:
        predictor: Predictor of the results.
        out: Folder of the results.
        threshold: Lowest score of an object that is drawn and written.
        annotations: COCO annotation file: ``image_id`` and ``category_id`` are those of its images
            (by file name) and categories (by name). Without it they are the position of the image
            among the inputs and the label, both from 0.
        force: Replace results in ``out``; those of other names stay, with a warning.

    Raises:
        UserError: (a ValueError) The annotation file cannot be read or lacks a class, the model is
            no detector; the folder cannot be written, or has results already.
    """

    def __init__(
        self,
        predictor: Predictor,
        out: str | Path,
        threshold: float = 0.3,
        annotations: str | Path | None = None,
        force: bool = False,
    ):
        self.predictor, self.out, self.threshold = predictor, Path(out), threshold
        task = getattr(predictor, 'task', 'detection')
        if annotations is not None and task != 'detection':
            raise UserError(f'annotations {annotations} are for detectors, this is {task}')
        self.ids = None if annotations is None else _Ids(Path(annotations), predictor.classes)
        self.entries: list[dict] = []
        self._video: _Video | None = None
        check_output_folder(self.out)
        self._names = _Names(self.out)
        self._old = _results(self.out)
        if self._old and not force:
            raise UserError(
                f'{self.out} has results already ({shorten([p.name for p in self._old])}); name '
                'another folder, or replace them with force (--force)'
            )
        self._write_entries()  # says from now on whose folder it is

    def __enter__(self) -> 'Writer':
        return self

    def __exit__(self, *error) -> None:
        self.close()

    @property
    def places(self) -> list[str]:
        """What was written: ``predictions.json``, and folders such as ``pictures``."""
        return [RESULTS_FILE, *self._names.folders]

    def announce(self, names: Iterable[str]) -> None:
        """Say which inputs will be added, so that no two compete for a name.

        Raises:
            UserError: There is an annotation file, and one of them is not in it.
        """
        names = list(names)
        for name in names if self.ids is not None else ():
            self.ids.image(name)
        self._names.announce(names)

    def add(self, prediction: Prediction) -> None:
        """Write the picture or frame of a result, and keep its entries for ``predictions.json``.

        Raises:
            UserError: A file cannot be written, or the annotation file has no such image.
        """
        drawn = self._draw(prediction)
        place: dict = dict(file_name=prediction.name)
        if prediction.frame is None:
            path = self._names.new('pictures', prediction.name, '.png')
            _write_image(drawn, path)
            place['picture'] = self._inside(path)
        else:
            video = self._add_frame(prediction, drawn)
            place.update(frame=prediction.frame, video=self._inside(video.path))
        if isinstance(prediction, Detection):
            self.entries += self._objects(prediction.above(self.threshold), place)
        elif isinstance(prediction, Segmentation):
            self.entries.append(self._shares(prediction, place))
        elif isinstance(prediction, Classification):
            top = [dict(category_name=n, score=round(s, 5)) for n, s in prediction.top(5)]
            self.entries.append(dict(**place, top5=top))

    def close(self) -> None:
        """Write ``predictions.json`` and finish the last video."""
        try:
            self._end_video()
        finally:
            self._write_entries()
        left = [path for folder in self._old for path in self._names.others(folder)]
        if left:
            warn(f'{len(left)} files of earlier results stay in {self.out}, as {left[0]}')
            self._old = []

    def _draw(self, prediction: Prediction) -> np.ndarray:
        try:
            return self.predictor.draw(prediction, self.threshold)
        except Exception as error:  # of a visualizer: MMSegmentation's fails on a single pixel
            warn(f'{prediction.name} cannot be drawn ({type(error).__name__}: {error})')
            return prediction.image

    def _write_entries(self) -> None:
        path = self.out / RESULTS_FILE
        with writing(path):
            write_atomically(path, json.dumps(self.entries, indent=1).encode())

    def _inside(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()

    def _add_frame(self, prediction: Prediction, drawn: np.ndarray) -> '_Video':
        video = self._video
        if video is None or video.name != prediction.name or prediction.frame == 0:
            self._end_video()
            path = self._names.new('videos', prediction.name, '.mp4')
            labels = self._names.new('label_maps', prediction.name)
            size = (drawn.shape[1], drawn.shape[0])
            video = self._video = _Video(prediction.name, path, labels, prediction.fps, size)
        video.writer.write(drawn)
        return video

    def _end_video(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None

    def _shares(self, prediction: Segmentation, place: dict) -> dict:
        if prediction.frame is None or self._video is None:
            path = self._names.new('label_maps', prediction.name, '.png')
        else:
            path = self._video.labels / f'{prediction.frame:06d}.png'
        dtype = np.uint8 if len(prediction.classes) <= 256 else np.uint16
        _write_image(prediction.label_map.astype(dtype), path)
        shares = {k: round(v, 6) for k, v in prediction.shares().items()}
        return dict(**place, label_map=self._inside(path), shares=shares)

    def _objects(self, found: Detection, place: dict) -> list[dict]:
        image_id = found.index if self.ids is None else self.ids.image(found.name)
        entries, corners = [], found.corners()
        for i in range(len(found)):
            upright = *corners[i].min(0).tolist(), *corners[i].max(0).tolist()
            x1, y1, x2, y2 = (round(v, 2) for v in upright)
            name = found.classes[found.labels[i]]
            entry = dict(
                image_id=image_id,
                **place,
                category_id=int(found.labels[i]) if self.ids is None else self.ids.categories[name],
                category_name=name,
                bbox=[x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                score=round(float(found.scores[i]), 5),
            )
            if found.boxes.shape[1] != 4:
                entry['corners'] = [round(v, 2) for v in corners[i].flatten().tolist()]
            if found.masks is not None:
                entry['segmentation'] = run_lengths(found.masks[i])
            entries.append(entry)
        return entries


class _Video:
    """A video that is being written, and the folder of its label maps."""

    def __init__(
        self, name: str, path: Path, labels: Path, fps: float, size: tuple[int, int]
    ) -> None:
        self.name, self.path, self.labels = name, path, labels
        self._link = contextlib.ExitStack()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            target = self._link.enter_context(plain_path(path))
        codec = cv2.VideoWriter_fourcc(*'mp4v')
        self.writer = cv2.VideoWriter(target, codec, fps, size)
        if not self.writer.isOpened():
            self.close()
            raise UserError(f'OpenCV cannot write the video {path} of {size[0]} x {size[1]}')

    def close(self) -> None:
        self.writer.release()
        self._link.close()


class _Names:
    """Names of the files that are written: no two are the same."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._taken: dict[str, set[str]] = defaultdict(set)  # by folder of ``out``
        self._crowded: set[str] = set()
        self._folds: bool | None = None

    @property
    def folders(self) -> list[str]:
        """Folders of ``out`` with files of the inputs."""
        return [name for name in self._taken if (self.out / name).is_dir()]  # not only reserved

    def announce(self, names: Sequence[str]) -> None:
        """Find the names that several inputs would get, or that are those of their folders."""
        for suffix in SUFFIXES:
            wanted = Counter(self._key(_renamed(name, suffix)) for name in names)
            self._crowded.update(name for name, count in wanted.items() if count > 1)
        self._crowded.update(
            self._key(folder.as_posix()) for name in names for folder in Path(name).parents
        )

    def new(self, folder: str, name: str, suffix: str = '') -> Path:
        """Path of a new file of an input in a folder.

        Its name is that of the input with another suffix; if others have it as well, both suffixes
        one after the other; if that is taken as well, a number.
        """
        short, whole = _renamed(name, suffix), f'{name}{suffix}'
        first = whole if self._key(short) in self._crowded else short
        stem, ending = os.path.splitext(whole)
        numbered = (f'{stem}~{number}{ending}' for number in itertools.count(2))
        taken = self._taken[folder]
        free = (n for n in itertools.chain([first, whole], numbered) if self._key(n) not in taken)
        name = next(free)
        if name != first:
            warn(f'{self.out / folder / first} is of another input; this one is {name}')
        taken.add(self._key(name))
        return self.out / folder / name

    def _key(self, name: str) -> str:
        if self._folds is None:  # where a and A are one file
            self._folds = (self.out / RESULTS_FILE.upper()).exists()
        return name.casefold() if self._folds else name

    def others(self, place: Path) -> Iterator[Path]:
        """Files of one of the folders that are not written by us."""
        for path in place.rglob('*') if place.is_dir() else ():
            inside = path.relative_to(place)
            names = [inside, *inside.parents]  # label maps of a video are in a folder
            taken = self._taken[place.name]
            if path.is_file() and not any(self._key(n.as_posix()) in taken for n in names):
                yield path


def _renamed(name: str, suffix: str) -> str:
    """Name of an input with another suffix; with one more if it has none that is known."""
    stem, ending = os.path.splitext(name)
    known = ending.lower() in SUFFIXES.get(suffix, ())
    return f'{stem if known else name}{suffix}'


def _results(out: Path) -> list[Path]:
    """Files and folders of results that are in a folder."""
    folders = [out / name for name in RESULTS_FOLDERS]
    file = out / RESULTS_FILE
    found = [path for path in folders if path.is_dir() and any(path.iterdir())]
    return [*found, *([file] if file.exists() else [])]


def _write_image(image: np.ndarray, path: Path) -> None:
    with writing(path):
        mmcv.imwrite(image, str(path))


class _Ids:
    """Ids of images and categories in a COCO annotation file."""

    def __init__(self, path: Path, classes: tuple[str, ...]):
        try:
            data = json.loads(path.read_bytes())
            images = [(str(image['file_name']), image['id']) for image in data['images']]
            self.categories = {item['name']: item['id'] for item in data['categories']}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f'annotations {path} cannot be read as a COCO file: {error}') from error
        self.path = path
        self._by_name: dict[str, list] = defaultdict(list)
        self._by_last: dict[str, list] = defaultdict(list)
        for name, number in images:
            self._by_name[name].append(number)
            self._by_last[name.rpartition('/')[2]].append(number)
        absent = [name for name in classes if name not in self.categories]
        if absent:
            raise UserError(
                f'{path} has no categories {shorten(absent)}, which the model predicts; it has '
                f'{shorten([str(name) for name in self.categories])}'
            )
        if len(self.categories) < len(data['categories']):
            raise UserError(f'{path} has several categories of one name; their ids are ambiguous')

    def image(self, name: str) -> int:
        """Id of an image by its name, or by the last part of it if that is unique."""
        found = self._by_name.get(name) or self._by_last.get(name.rpartition('/')[2], [])
        if len(found) != 1:
            many = 'several images' if found else 'no image'
            raise UserError(f'{many} of {self.path} have the name of {name}')
        return found[0]


def run_lengths(mask: np.ndarray) -> dict:
    """Encode a mask (H, W) as COCO's compressed run lengths."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=list(rle['size']), counts=rle['counts'].decode())
