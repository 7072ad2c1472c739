"""Predictor with a file in ONNX in the place of a config and a checkpoint."""

import cv2
import numpy as np
import pytest

from hybrid_mm.apis import Detection, Predictor
from hybrid_mm.errors import UserError

RESIZE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=[96, 64], keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=['ori_shape', 'scale_factor']),
]


def images(*sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_objects_of_images_of_several_sizes(onnx_file, tmp_path):
    """Arrays and files, alone and in batches: boxes and masks in pixels of the images given."""
    file = onnx_file('detection', test_pipeline=RESIZE)
    inputs = images((32, 48), (70, 20), (32, 48))
    cv2.imwrite(str(tmp_path / 'x.png'), inputs[0])
    predict = Predictor(file, device='cpu', batch_size=2)
    assert (predict.task, predict.classes) == ('detection', ('square', 'disc', 'bar'))
    assert predict.device.type == 'cpu'
    found = predict([*inputs, tmp_path / 'x.png'])
    for result, image, factor in zip(found, [*inputs, inputs[0]], (2, 96 / 70, 2, 2), strict=True):
        assert isinstance(result, Detection) and np.array_equal(result.image, image)
        np.testing.assert_allclose(result.boxes[0], np.array([4, 2, 20, 10]) / factor, rtol=0.05)
        assert result.labels.tolist() == [2, 0]
        assert result.masks.shape == (2, *image.shape[:2]) and result.masks.any((1, 2)).all()
    for a, b in zip(found, Predictor(str(file), device='cpu')(inputs), strict=False):
        assert np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)
    drawn = predict.draw(found[0], threshold=0.0)
    assert drawn.shape == inputs[0].shape and (drawn != inputs[0]).any()


@pytest.mark.parametrize('palette', [True, False])
def test_label_maps(onnx_file, palette):
    kept = {} if palette else dict(palette=None)
    predict = Predictor(onnx_file('segmentation', **kept), device='cpu')
    (image,) = images((10, 14))
    (found,) = predict(image)
    assert np.array_equal(found.label_map, image[..., ::-1].argmax(2))
    assert predict.draw(found).shape == image.shape


def test_scores(onnx_file):
    predict = Predictor(onnx_file('classification'), device='cpu')
    image = np.zeros((6, 6, 3), np.uint8)
    image[..., 0] = 3  # blue
    (found,) = predict(image)
    assert found.top(1)[0][0] == 'bar'
    np.testing.assert_allclose(found.scores, np.exp([0, 0, 3]) / (2 + np.exp(3)), rtol=1e-5)
    assert predict.draw(found).shape == image.shape


def test_options_change_the_pipeline(onnx_file):
    options = {'test_dataloader.dataset.pipeline.1.scale': (192, 128)}
    file = onnx_file('detection', test_pipeline=RESIZE)
    (found,) = Predictor(file, device='cpu', options=options)(images((32, 48))[0])
    assert found.boxes[0].tolist() == [1, 0.5, 5, 2.5]


TAKES_THRESHOLDS = (
    ('[N,H,W,3] image)', '[N,H,W,3] image, float score_threshold, float iou_threshold)'),
    ('float top = {255}', 'float top={255}, float score_threshold={1}, float iou_threshold={0}'),
    ('scores = Div(mean, top)', 'a = Div(mean, top)\nb = Mul(a, score_threshold)\n'
     'scores = Add(b, iou_threshold)'),
)  # fmt: skip


def test_thresholds_are_inputs_of_the_file(onnx_file):
    """By the keys that the config has, of one stage or two; here they change the scores."""
    file, (image,) = onnx_file('detection', *TAKES_THRESHOLDS), images((8, 8))
    (plain,) = Predictor(file, device='cpu')(image)
    for stage in ('', 'rcnn.'):
        at = f'model.test_cfg.{stage}'
        options = {f'{at}score_thr': 0.5, f'{at}nms.iou_threshold': 0.25}
        (found,) = Predictor(file, device='cpu', options=options)(image)
        np.testing.assert_allclose(found.scores, plain.scores / 2 + 0.25, rtol=1e-6)
    for value in (1.5, '0.3', True):
        with pytest.raises(UserError, match=r'score_threshold of .* from 0 to 1, got'):
            Predictor(file, options={'model.test_cfg.score_thr': value})


def test_an_image_that_the_file_cannot_take(onnx_file):
    predict = Predictor(onnx_file('classification', ('[N,H,W', '[N,6,W')), device='cpu')
    failed = []
    found = predict(images((6, 8), (5, 8)), on_error=lambda name, error: failed.append(str(error)))
    assert [result.index for result in found] == [0]
    assert 'array1' in failed[0] and 'height 5 instead of 6' in failed[0]


def test_wrong_uses(onnx_file):
    file = onnx_file('detection')
    unknown = [dict(type='LoadImageFromFile'), dict(type='MyResize')]
    for settings, text in (
        (dict(config=file, checkpoint='x.pth'), 'leave out the checkpoint x.pth'),
        (dict(config='config.py', checkpoint=file), 'contains its config; leave out config.py'),
        (dict(config='config.py'), 'config.py needs a checkpoint'),
        (dict(config=file, tta=True), 'test-time augmentation needs the config'),
        (dict(config=file, options={'model.test_cfg.mode': 'slide'}), 'export it again with this'),
        (dict(config=file, options={'model.test_cfg.score_thr': 0.1}), 'no input score_threshold'),
        (dict(config=file, batch_size=0), 'at least 1'),
        (dict(config=file, device='cuda:77'), 'cuda:77'),
    ):
        with pytest.raises(UserError, match=text):
            Predictor(**settings)
    for metadata, text in (
        (dict(test_pipeline=None), 'has no test pipeline'),
        (dict(classes=[]), 'has no names of classes'),
        (dict(test_pipeline=unknown), 'MyResize is not in'),
    ):
        with pytest.raises(UserError, match=text):
            Predictor(onnx_file('detection', **metadata))
