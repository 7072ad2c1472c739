"""Every figure of results and of what is written, against those computed by hand."""

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from hybrid_mm.apis import Classification, Detection, Segmentation, Writer
from hybrid_mm.apis.results import to_prediction
from hybrid_mm.apis.sources import count_sources, read_sources
from hybrid_mm.apis.writer import run_lengths
from hybrid_mm.errors import UserError

CLASSES = ('cat', 'dog', 'emu', 'fox', 'gnu', 'hen', 'ibis')
IMAGE = np.zeros((4, 6, 3), np.uint8)


def shared(**changes):
    return {
        **dict(index=3, name='sub/a.png', image=IMAGE, classes=CLASSES, sample=BaseDataElement()),
        **changes,
    }


def detection(scores=(0.9, 0.5, 0.3, 0.25), masks=True, **changes):
    """Scores that float32 holds exactly, but for the first and the third."""
    boxes = np.array([[0, 1, 3, 4], [1.5, 0, 6, 2.25], [2, 2, 2.004, 3], [0, 0, 1, 1]], np.float32)
    maps = np.zeros((4, 4, 6), bool)
    for mask, (x1, y1, x2, y2) in zip(maps, boxes.round().astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    return Detection(
        **shared(**changes),
        boxes=boxes,
        scores=np.array(scores, np.float32),
        labels=np.array([6, 0, 2, 6]),
        masks=maps if masks else None,
    )


def test_threshold_is_the_lowest_score_that_counts():
    found = detection()
    for threshold, number in ((0.0, 4), (0.25, 4), (0.2501, 3), (0.5, 2), (0.51, 1), (1.0, 0)):
        part = found.above(threshold)
        assert len(part) == number == len(part.boxes) == len(part.labels) == len(part.masks)
        assert np.array_equal(part.boxes, found.boxes[:number])
        assert np.array_equal(part.labels, found.labels[:number])
        assert np.array_equal(part.masks, found.masks[:number])
        assert (part.name, part.index, part.classes) == ('sub/a.png', 3, CLASSES)
    mixed = detection(scores=(0.25, 0.75, 0.125, 0.5)).above(0.25)
    assert mixed.labels.tolist() == [6, 0, 6] and mixed.scores.tolist() == [0.25, 0.75, 0.5]
    assert detection(masks=False).above(0.5).masks is None
    assert len(found) == 4


def test_shares_of_the_classes_largest_first():
    labels = np.array([[2, 2, 5, 5, 5, 0], [5, 5, 2, 2, 5, 5]])
    shares = Segmentation(**shared(), label_map=labels).shares()
    assert list(shares.items()) == [('hen', 7 / 12), ('emu', 4 / 12), ('cat', 1 / 12)]


def test_best_classes():
    scores = np.array([0.05, 0.3, 0.1, 0.2, 0.15, 0.12, 0.08], np.float32)
    found = Classification(**shared(), scores=scores)
    names = ['dog', 'fox', 'gnu', 'hen', 'emu', 'ibis', 'cat']
    assert [name for name, _ in found.top()] == names[:5]
    for number in (1, 2, 6, 7, 9):
        assert [name for name, _ in found.top(number)] == names[:number]
    assert found.top(2) == [('dog', pytest.approx(0.3)), ('fox', pytest.approx(0.2))]
    assert all(type(score) is float for _, score in found.top())


def test_samples_of_the_libraries():
    common = dict(index=0, name='a', image=IMAGE, classes=CLASSES, frame=4, fps=12.5)
    labels = torch.tensor([[[3, 1], [0, 2]]])
    sample = BaseDataElement(pred_sem_seg=PixelData(data=labels))
    found = to_prediction('segmentation', sample, common)
    assert type(found) is Segmentation and found.label_map.tolist() == [[3, 1], [0, 2]]
    assert (found.frame, found.fps, found.sample) == (4, 12.5, sample)
    scores = torch.tensor([0.25, 0.75], dtype=torch.bfloat16)
    found = to_prediction('classification', BaseDataElement(pred_score=scores), common)
    assert type(found) is Classification and found.scores.tolist() == [0.25, 0.75]
    assert found.scores.dtype == np.float32
    boxes = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 9]], dtype=torch.float64)
    instances = InstanceData(
        bboxes=boxes, scores=torch.tensor([0.5, 0.25]).bfloat16(), labels=torch.tensor([2, 0])
    )
    instances.masks = torch.tensor([[[1, 0]], [[0, 1]]], dtype=torch.uint8)
    found = to_prediction('detection', BaseDataElement(pred_instances=instances), common)
    assert type(found) is Detection and found.boxes.tolist() == boxes.tolist()
    assert found.boxes.dtype == found.scores.dtype == np.float32 and found.masks.dtype == bool
    assert found.labels.tolist() == [2, 0] and found.masks.tolist() == [
        [[True, False]],
        [[False, True]],
    ]
    del instances.masks
    found = to_prediction('detection', BaseDataElement(pred_instances=instances[:0]), common)
    assert found.masks is None and found.boxes.shape == (0, 4) and len(found) == 0
    with pytest.raises(ValueError, match='predicts no instances'):
        to_prediction('detection', BaseDataElement(), common)


class Painter:
    """Stands in for a predictor: writes down what it is asked to draw."""

    classes = CLASSES

    def __init__(self):
        self.drawn = []

    def draw(self, prediction, threshold):
        self.drawn.append((prediction.name, threshold))
        return np.full((4, 6, 3), 7, np.uint8)


def written(folder, *predictions, **settings):
    painter = Painter()
    with Writer(painter, folder, **settings) as writer:
        for prediction in predictions:
            writer.add(prediction)
    assert painter.drawn == [(p.name, settings.get('threshold', 0.3)) for p in predictions]
    return json.loads((folder / 'predictions.json').read_text())


def test_objects_as_coco_has_them(tmp_path):
    """Left, top, width, height; scores and corners rounded; what is below the threshold is not."""
    entries = written(tmp_path, detection(), threshold=0.5)
    assert not any('corners' in entry for entry in entries)
    for entry in entries:
        rle = entry.pop('segmentation')
        assert rle['size'] == [4, 6]
    common = dict(image_id=3, file_name='sub/a.png', picture='pictures/sub/a.png')
    assert entries == [
        dict(common, category_id=6, category_name='ibis', bbox=[0, 1, 3, 3], score=0.9),
        dict(common, category_id=0, category_name='cat', bbox=[1.5, 0, 4.5, 2.25], score=0.5),
    ]
    assert (tmp_path / 'pictures' / 'sub' / 'a.png').is_file()
    (last,) = written(
        tmp_path / 'b', detection(scores=(0, 0, 0.123456789, 0), masks=False), threshold=0.1
    )
    assert last == dict(
        common, category_id=2, category_name='emu', bbox=[2, 2, 0, 1], score=0.12346
    )


def test_rotated_boxes(tmp_path):
    """A box of 4 x 2 around (5, 6), as it is, turned by 90 and by 30 degrees; a quadrilateral."""
    turned = [[5, 6, 4, 2, angle] for angle in (0, np.pi / 2, np.pi / 6)]
    instances = InstanceData(
        bboxes=torch.tensor(turned), scores=torch.ones(3), labels=torch.zeros(3, dtype=torch.long)
    )
    found = to_prediction('detection', BaseDataElement(pred_instances=instances), shared())
    assert found.boxes.shape == (3, 5) and found.above(0.5).boxes.shape == (3, 5)
    upright = dataclasses.replace(found, boxes=np.array([[3, 5, 7, 7]], np.float32)).corners()
    assert upright.tolist() == [[[3, 5], [7, 5], [7, 7], [3, 7]]]
    corners = found.corners()
    assert np.allclose(corners[0], upright[0])
    assert np.allclose(corners[1], [[6, 4], [6, 8], [4, 8], [4, 4]], atol=1e-6)
    # 30 degrees clockwise on the screen: the upper right corner is at (2, -1) before
    assert np.allclose(corners[2, 1], [5 + 3**0.5 + 0.5, 6 + 1 - 3**0.5 / 2])
    assert np.allclose(dataclasses.replace(found, boxes=corners.reshape(3, 8)).corners(), corners)
    entries = written(tmp_path, found)
    assert [entry['bbox'] for entry in entries[:2]] == [[3, 5, 4, 2], [4, 4, 2, 4]]
    assert entries[0]['corners'] == [3, 5, 7, 5, 7, 7, 3, 7]
    x, y, width, height = entries[2]['bbox']
    assert [width, height] == pytest.approx([1 + 2 * 3**0.5, 2 + 3**0.5], abs=0.01)
    assert [x + width / 2, y + height / 2] == pytest.approx([5, 6], abs=0.01)


def test_run_lengths_go_down_the_columns():
    from pycocotools import mask as coco_mask

    mask = np.zeros((3, 4), bool)
    mask[1:, 1] = mask[0, 2] = True
    found = run_lengths(mask)
    assert found['size'] == [3, 4] and type(found['counts']) is str
    # 4 off, 3 on (two of the second column, one of the third), 5 off
    uncompressed = coco_mask.frPyObjects(dict(size=[3, 4], counts=[4, 3, 5]), 3, 4)
    assert found['counts'] == uncompressed['counts'].decode()


def annotation_file(folder, names):
    data = dict(
        images=[dict(id=11 * (i + 1), file_name=name) for i, name in enumerate(names)],
        categories=[dict(id=90 - i, name=name) for i, name in enumerate(('gull', *CLASSES))],
    )
    (folder / 'truth.json').write_text(json.dumps(data))
    return folder / 'truth.json'


def test_numbers_of_an_annotation_file(tmp_path):
    path = annotation_file(tmp_path, ['x/b.png', 'a.png', 'sub/a.png', 'c.png'])
    found = [detection(name=name) for name in ('sub/a.png', 'a.png', 'other/c.png', 'b.png')]
    entries = written(tmp_path / 'o', *found, threshold=0.9 - 1e-6, annotations=path)
    assert [e['image_id'] for e in entries] == [33, 22, 44, 11]
    assert {e['category_id'] for e in entries} == {90 - 7}  # ibis
    assert [e['file_name'] for e in entries] == [d.name for d in found]
    with pytest.raises(ValueError, match=r'several images of .*truth\.json have the name of u/a'):
        written(tmp_path / 'p', detection(name='u/a.png'), annotations=path)
    with pytest.raises(ValueError, match=r'no image of .*truth\.json have the name of d\.png'):
        written(tmp_path / 'q', detection(name='d.png'), annotations=path)


@pytest.mark.parametrize(('number', 'highest', 'dtype'), [
    (7, 6, np.uint8), (256, 255, np.uint8), (257, 256, np.uint16), (1000, 999, np.uint16),
])  # fmt: skip
def test_label_maps(tmp_path, number, highest, dtype):
    labels = np.zeros((4, 6), np.int64)
    labels[1:3, 2:5] = highest
    classes = tuple(f'c{i}' for i in range(number))
    frames = [
        Segmentation(**shared(name=n, classes=classes, frame=f, fps=5.0), label_map=labels)
        for n, f in (('sub/a.png', None), ('sub/a.avi', 17))
    ]
    entries = written(tmp_path, *frames)
    names = ['label_maps/sub/a.png', 'label_maps/sub/a.avi/000017.png']
    assert [e['label_map'] for e in entries] == names
    assert [e.get('frame') for e in entries] == [None, 17]
    assert entries[0]['picture'] == 'pictures/sub/a.png' and 'video' not in entries[0]
    assert entries[1]['video'] == 'videos/sub/a.mp4' and 'picture' not in entries[1]
    for entry in entries:
        assert entry['shares'] == {'c0': 0.75, f'c{highest}': 0.25}
        image = cv2.imread(str(tmp_path / entry['label_map']), cv2.IMREAD_UNCHANGED)
        assert image.dtype == dtype
        np.testing.assert_array_equal(image, labels)


def test_classes_of_an_image(tmp_path):
    scores = np.array([0.05, 0.3, 0.1, 0.2, 0.1500004, 0.12, 0.08], np.float32)
    (entry,) = written(tmp_path, Classification(**shared(), scores=scores))
    assert entry == dict(
        file_name='sub/a.png',
        picture='pictures/sub/a.png',
        top5=[
            dict(category_name=n, score=s)
            for n, s in (('dog', 0.3), ('fox', 0.2), ('gnu', 0.15), ('hen', 0.12), ('emu', 0.1))
        ],
    )


def write_video(path, frames, rate=12.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), rate, (64, 48))
    for i in range(frames):
        video.write(np.full((48, 64, 3), 20 * i, np.uint8))
    video.release()
    return path


def test_videos_among_images(tmp_path):
    """Numbers of frames, frames per second and places in the stream, in whatever case of names."""
    first = write_video(tmp_path / 'a.mp4', 3)
    second = tmp_path / 'sub' / 'B.MP4'
    second.parent.mkdir()
    second.write_bytes(write_video(tmp_path / 'b.mp4', 2, 5.0).read_bytes())
    cv2.imwrite(str(tmp_path / 'sub' / 'c.PNG'), IMAGE)
    (tmp_path / 'sub' / 'notes.txt').write_text('')
    inputs = [first, second, tmp_path / 'sub']
    found = list(read_sources(inputs))
    assert [(s.index, s.name, s.frame, s.fps) for s in found] == [
        *((i, 'a.mp4', i, 12.5) for i in range(3)),
        *((i + 3, 'sub/B.MP4', i, 5.0) for i in range(2)),
        (5, 'sub/c.PNG', None, None),
    ]
    for source in found[:3]:
        assert abs(int(source.image.mean()) - 20 * source.frame) < 8
    assert count_sources(inputs) == 6 and count_sources([second]) == 2


def test_frames_go_into_the_video_of_their_name(tmp_path):
    labels = np.zeros((4, 6), np.int64)

    def frame(name, number, fps):
        return Segmentation(**shared(name=name, frame=number, fps=fps), label_map=labels)

    sizes = {}
    painter = SimpleNamespace(classes=CLASSES, draw=lambda p, t: np.full((48, 64, 3), 9, np.uint8))
    with Writer(painter, tmp_path) as writer:
        for name, count, fps in (('x/a.avi', 3, 12.5), ('b.mov', 2, 5.0)):
            for number in range(count):
                writer.add(frame(name, number, fps))
    for name in ('x/a.mp4', 'b.mp4'):
        video = cv2.VideoCapture(str(tmp_path / 'videos' / name))
        number = 0
        while video.read()[0]:
            number += 1
        sizes[name] = number, video.get(cv2.CAP_PROP_FPS)
    assert sizes == {'x/a.mp4': (3, 12.5), 'b.mp4': (2, 5.0)}


def test_inputs_of_one_name_have_files_of_their_own(tmp_path, capsys):
    """Two videos of one stem, and two inputs that are called the same, in whatever way."""
    labels = np.zeros((4, 6), np.int64)

    def frames(name, count):
        common = dict(shared(name=name), fps=5.0, label_map=labels)
        return [Segmentation(**dict(common, frame=i)) for i in range(count)]

    image = Segmentation(**shared(name='a.png'), label_map=labels)
    painter = SimpleNamespace(classes=CLASSES, draw=lambda p, t: np.full((48, 64, 3), 9, np.uint8))
    videos = [('x/a.avi', 3), ('x/a.mp4', 2), ('x/a.avi', 1)]
    with Writer(painter, tmp_path) as writer:
        for name, count in videos:
            for frame in frames(name, count):
                writer.add(frame)
        for _ in range(3):
            writer.add(image)
    assert writer.places == ['predictions.json', 'videos', 'label_maps', 'pictures']
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*') if p.is_file()}
    assert files == {
        'predictions.json',
        *('videos/x/a.mp4', 'videos/x/a.mp4.mp4', 'videos/x/a.avi.mp4'),
        *('pictures/a.png', 'pictures/a.png.png', 'pictures/a.png~2.png'),
        *('label_maps/a.png', 'label_maps/a.png.png', 'label_maps/a.png~2.png'),
        *(f'label_maps/x/a.avi/{i:06d}.png' for i in range(3)),
        *(f'label_maps/x/a.mp4/{i:06d}.png' for i in range(2)),
        'label_maps/x/a~2.avi/000000.png',
    }
    entries = json.loads((tmp_path / 'predictions.json').read_text())
    assert {e['label_map'] for e in entries} == {f for f in files if f.startswith('label_maps')}
    assert 'pictures/a.png is of another input; this one is a.png~2.png' in (
        capsys.readouterr().err
    )
    lengths = {}
    for name in ('a.mp4', 'a.mp4.mp4', 'a.avi.mp4'):
        video = cv2.VideoCapture(str(tmp_path / 'videos' / 'x' / name))
        lengths[name] = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    assert lengths == {'a.mp4': 3, 'a.mp4.mp4': 2, 'a.avi.mp4': 1}


def test_files_are_called_as_their_inputs(tmp_path, capsys):
    """Only the suffix differs, unless two would get one file; in any order."""
    names = {
        'x.jpg': 'x.jpg.png',  # two of one stem
        'x.png': 'x.png.png',
        'sub/x.JPEG': 'sub/x.png',
        'y.tar.tiff': 'y.tar.png',
        'array0': 'array0.png',
        'photo.v2': 'photo.v2.png',  # not the suffix of an image
        'deep.jpg': 'deep.jpg.png',  # a folder is called deep.png
        'deep.png/z.jpg': 'deep.png/z.png',
    }
    labels = np.zeros((4, 6), np.int64)
    found = [Segmentation(**shared(name=name), label_map=labels) for name in names]
    for order in (found, found[::-1]):
        out = tmp_path / order[0].name
        with Writer(Painter(), out) as writer:
            writer.announce(names)
            for prediction in order:
                writer.add(prediction)
        for entry in json.loads((out / 'predictions.json').read_text()):
            name = names[entry['file_name']]
            assert entry['picture'] == f'pictures/{name}' and (out / entry['picture']).is_file()
            assert (
                entry['label_map'] == f'label_maps/{name}' and (out / entry['label_map']).is_file()
            )
    assert not capsys.readouterr().err


@pytest.mark.parametrize('folds', [False, True])
def test_names_that_differ_by_case_only(tmp_path, monkeypatch, folds):
    """They are one file on the disks of macOS and Windows."""
    if folds:
        exists = Path.exists
        monkeypatch.setattr(Path, 'exists', lambda p: p.name == 'PREDICTIONS.JSON' or exists(p))
    written(tmp_path, detection(name='A.png'), detection(name='a.png'))
    second = 'a.png.png' if folds else 'a.png'
    assert {p.name for p in (tmp_path / 'pictures').iterdir()} == {'A.png', second}


def test_results_are_replaced_on_demand_only(tmp_path, capsys):
    written(tmp_path, detection(name='a.png'), detection(name='b.png'))
    before = (tmp_path / 'predictions.json').read_text()
    for _ in range(2):
        with pytest.raises(UserError, match=r'has results already \(pictures, predictions'):
            written(tmp_path, detection(name='a.png'))
        assert (tmp_path / 'predictions.json').read_text() == before
    (tmp_path / 'predictions.json').unlink()
    with pytest.raises(UserError, match=r'has results already \(pictures\)'):
        written(tmp_path, detection(name='a.png'))
    capsys.readouterr()
    entries = written(tmp_path, detection(name='b.png'), force=True)
    assert {e['file_name'] for e in entries} == {'b.png'}
    warned = capsys.readouterr().err
    assert '1 files of earlier results stay in' in warned and 'pictures/a.png' in warned
    (tmp_path / 'x').write_text('')
    with pytest.raises(UserError, match='x is a file; expected a folder'):
        written(tmp_path / 'x', detection())


@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError])
def test_what_is_done_is_kept(tmp_path, error):
    with pytest.raises(error), Writer(Painter(), tmp_path) as writer:
        assert json.loads((tmp_path / 'predictions.json').read_text()) == []
        writer.add(detection())
        raise error
    assert len(json.loads((tmp_path / 'predictions.json').read_text())) == 3
    assert not [p for p in tmp_path.iterdir() if p.name.startswith('predictions.json.')]


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    with Writer(Painter(), tmp_path) as writer, monkeypatch.context() as patch:
        patch.setattr('mmcv.imwrite', full)
        with pytest.raises(UserError, match=r'/a\.png cannot be written: No space left'):
            writer.add(detection())


def test_a_result_that_cannot_be_drawn(tmp_path, capsys):
    def draw(prediction, threshold):
        raise IndexError('one pixel')

    with Writer(SimpleNamespace(classes=CLASSES, draw=draw), tmp_path) as writer:
        writer.add(detection())
    assert len(json.loads((tmp_path / 'predictions.json').read_text())) == 3
    assert not cv2.imread(str(tmp_path / 'pictures' / 'sub' / 'a.png')).any()  # the image
    assert 'sub/a.png cannot be drawn (IndexError: one pixel)' in capsys.readouterr().err


def test_annotation_files_that_are_ambiguous(tmp_path):
    path = annotation_file(tmp_path, ['a.png', 'a.png', 'b.png'])
    with Writer(Painter(), tmp_path / 'o', annotations=path) as writer:
        writer.announce(['b.png'])
        with pytest.raises(UserError, match=r'several images of .* have the name of a\.png'):
            writer.announce(['b.png', 'a.png'])
        with pytest.raises(UserError, match=r'no image of .* have the name of c\.png'):
            writer.announce(['c.png'])
    data = json.loads(path.read_text())
    data['categories'].append(dict(id=1, name='cat'))
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match='several categories of one name'):
        Writer(Painter(), tmp_path / 'p', annotations=path)
    segmenter = SimpleNamespace(classes=CLASSES, task='segmentation')
    with pytest.raises(UserError, match='are for detectors, this is segmentation'):
        Writer(segmenter, tmp_path / 'p', annotations=path)
    assert not (tmp_path / 'p').exists()


def test_a_folder_whose_name_is_no_text(tmp_path):
    """OpenCV ends the process where it is asked to write there."""
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9'))
    labels = np.zeros((4, 6), np.int64)
    painter = SimpleNamespace(classes=CLASSES, draw=lambda p, t: np.full((48, 64, 3), 9, np.uint8))
    with Writer(painter, out) as writer:
        for frame in (None, 0, 1):
            common = dict(shared(name='a.avi'), fps=5.0, label_map=labels, frame=frame)
            writer.add(Segmentation(**common))
    assert (out / 'pictures' / 'a.avi.png').is_file() and (out / 'predictions.json').is_file()
    video = out / 'videos' / 'a.mp4'
    assert video.rename(tmp_path / 'a.mp4').stat().st_size > 100
    assert cv2.VideoCapture(str(tmp_path / 'a.mp4')).get(cv2.CAP_PROP_FRAME_COUNT) == 2
