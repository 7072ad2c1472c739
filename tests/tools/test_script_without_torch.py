"""The script of docs/export.md, without PyTorch and OpenCV: it finds what Predictor predicts."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hybrid_mm.apis import Predictor
from hybrid_mm.export.metadata import resize_rule

pytest.importorskip('onnxruntime')

PAGE = Path(__file__).parents[2] / 'docs/export.md'
BLOCKED = 'torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'cv2', 'onnx', 'hybrid_mm'
NEEDED = 'numpy', 'onnxruntime', 'pillow'
# masks that differ from pixel to pixel
WAVES = """begin = Constant<value_float=0.0>()
  end = Constant<value_float=784.0>()
  step = Constant<value_float=1.0>()
  line = Range(begin, end, step)
  wave = Sin(line)
  square = Constant<value_ints=[28, 28]>()
  field = Reshape(wave, square)"""

# masks of the size that is asked for, and a panoptic map: the results of Mask2Former
WHOLE = (
    ('[N,H,W,3] image)', '[N,H,W,3] image, int64[2] size)'),
    ('float[N,3,28,28] masks', 'bool[N,3,h,w] masks, int32[N,h,w] panoptic_map'),
    ('float top = {255}', 'float top = {255}, int64[2] size = {0,0}, int64[2] ones = {1,1}'),
    (
        'field = Constant<value_float=0.7>()',
        'filled = Expand(top, size)\n  field = EyeLike(filled)',
    ),
    ('shape = Constant<value_ints=[1, 1, 28, 28]>()', 'shape = Concat<axis=0>(ones, size)'),
    (
        'masks = Add(full, corner)',
        'sums = Add(full, corner)\n  half = Constant<value_float=0.5>()\n'
        '  masks = Greater(sums, half)\n  many = Cast<to=6>(field)\n'
        '  first = Constant<value_ints=[0]>()\n  panoptic_map = Unsqueeze(many, first)',
    ),
)


def script() -> str:
    text = PAGE.read_text()
    return text[text.index('## Run a file without') :].split('```python\n')[1].split('```')[0]


@pytest.fixture
def run(tmp_path):
    """A function that runs the script in the folder of the test; what it prints."""

    def start(
        python=sys.executable, before=f'import sys\nfor n in {BLOCKED}: sys.modules[n] = None\n'
    ):
        done = subprocess.run(
            [python, '-c', before + script()], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert 'appears in graph inputs' not in done.stderr
        return done.stdout

    return start


def photo(folder, size):
    """A smooth photo, without losses so that all read the same; its array."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), size)
    cv2.imwrite(str(folder / 'photo.png'), image)
    (folder / 'photo.png').rename(folder / 'photo.jpg')
    return image


def write(onnx_file, kind, resize, *replace):
    """A small model with a way to resize; its path is model.onnx."""
    pack = dict(detection='PackDetInputs', segmentation='PackSegInputs')[kind]
    keys = dict(meta_keys=['ori_shape', 'scale_factor']) if kind == 'detection' else {}
    pipeline = [dict(type='LoadImageFromFile'), *resize, dict(type=pack, **keys)]
    rule = resize_rule(pipeline)
    known = dict(resize=rule, thresholds=dict(mask=0.4))
    takes_size = kind == 'segmentation' or replace == WHOLE
    known['optional_inputs'] = dict(size=[0, 0]) if takes_size else {}
    path = onnx_file(kind, *replace, test_pipeline=pipeline, **known)
    return path.rename(path.with_name('model.onnx'))


@pytest.mark.parametrize(
    'resize',
    [
        [],
        [dict(type='Resize', scale=[130, 77])],
        [dict(type='Resize', scale=[333, 200], keep_ratio=True)],
        [dict(type='Resize', scale=[60, 333], keep_ratio=True)],
    ],
)
def test_a_detector(onnx_file, run, tmp_path, resize):
    image = photo(tmp_path, (150, 101))
    file = write(onnx_file, 'detection', resize, ('field = Constant<value_float=0.7>()', WAVES))
    (expected,) = Predictor(file, device='cpu')(image)
    lines = run().splitlines()
    kept = expected.above(0.3)
    assert len(lines) == len(kept) >= 1
    for i, line in enumerate(lines):
        name, score, box = line.split(maxsplit=2)
        assert name == expected.classes[expected.labels[i]]
        assert float(score) == pytest.approx(expected.scores[i], abs=2e-3)
        np.testing.assert_allclose(np.fromstring(box[1:-1], sep=' '), expected.boxes[i], rtol=1e-5)
        mask = np.asarray(Image.open(tmp_path / f'mask{i}.png'))
        assert mask.dtype == bool and mask.any() and not mask.all()
        assert np.mean(mask != expected.masks[i]) < 1e-3  # values near the threshold


def test_masks_of_the_whole_photo(onnx_file, run, tmp_path):
    image = photo(tmp_path, (150, 101))
    resize = [dict(type='Resize', scale=[333, 200], keep_ratio=True)]
    (expected,) = Predictor(write(onnx_file, 'detection', resize, *WHOLE), device='cpu')(image)
    lines, kept = run().splitlines(), expected.above(0.3)
    assert len(lines) == len(kept) >= 1
    for i, line in enumerate(lines):
        box = line.split(maxsplit=2)[2]
        np.testing.assert_allclose(np.fromstring(box[1:-1], sep=' '), expected.boxes[i], rtol=1e-5)
        mask = np.asarray(Image.open(tmp_path / f'mask{i}.png'))
        assert mask.any() and np.array_equal(mask, expected.masks[i])
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'panoptic.tiff')), np.eye(101, 150))


@pytest.mark.parametrize('resize', [[], [dict(type='Resize', scale=[90, 333], keep_ratio=True)]])
def test_a_segmenter(onnx_file, run, tmp_path, resize):
    image = photo(tmp_path, (150, 101))
    (expected,) = Predictor(write(onnx_file, 'segmentation', resize), device='cpu')(image)
    run()
    labels = np.asarray(Image.open(tmp_path / 'labels.png'))
    assert labels.shape == (101, 150) and len(np.unique(labels)) == 3
    assert np.mean(labels == expected.label_map) > 0.995


@pytest.mark.slow
def test_a_fresh_environment(onnx_file, run, tmp_path):
    """Nothing but the three packages is installed."""
    folder = tmp_path / 'packages'
    command = [sys.executable, '-m', 'pip', 'install', '-q', '--target', folder, *NEEDED]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip('no registry of packages')
    assert not (folder / 'torch').exists() and not (folder / 'cv2').exists()
    image = photo(tmp_path, (150, 101))
    (expected,) = Predictor(write(onnx_file, 'detection', []), device='cpu')(image)
    # -S and -I leave out what this environment has
    done = subprocess.run(
        [
            sys.executable,
            '-I',
            '-S',
            '-c',
            f'import sys\nsys.path.append({str(folder)!r})\n{script()}',
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(expected.above(0.3)) >= 1
