"""The script of docs/export.md: what it writes is what ``tools/predict.py`` predicts."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hybrid_mm.apis import Predictor
from hybrid_mm.run.config import load_config

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

PAGE = Path(__file__).parents[2] / 'docs/export.md'


def script() -> str:
    text = PAGE.read_text()
    return text[text.index('## From a photo') :].split('```python\n')[1].split('```')[0]


def test_script(tool, seg_config, work_dir_of, tmp_path, monkeypatch):
    """A photo of another size than the network takes, with colours that are no grey."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    photo = cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (150, 101))
    cv2.imwrite('photo.png', photo)
    shutil.move('photo.png', 'photo.jpg')  # without losses, so that both read the same
    checkpoint = work_dir_of('seg') / 'iter_2.pth'
    options = dict(bgr_to_rgb=True, mean=[120.0, 110.0, 90.0], std=[50.0, 60.0, 70.0])
    options = {f'model.data_preprocessor.{key}': value for key, value in options.items()}
    flags = [f'{key}={value}'.replace(' ', '') for key, value in options.items()]
    run = (
        seg_config,
        checkpoint,
        'model.onnx',
        '--raw',
        '--fixed',
        '--size',
        64,
        96,
        '--cfg-options',
        *flags,
    )
    status, err = tool('export_onnx', *run)
    assert status == 0, err
    cfg = load_config(str(seg_config))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 64))]
    cfg.test_dataloader.dataset.pipeline = [*pipeline, dict(type='PackSegInputs')]
    for to_rgb in (True, False):
        options['model.data_preprocessor.bgr_to_rgb'] = to_rgb
        (expected,) = Predictor(cfg, checkpoint, device='cpu', options=options)('photo.jpg')
        model = onnx.load('model.onnx')
        for item in model.metadata_props:
            item.value = json.dumps(to_rgb) if item.key == 'bgr_to_rgb' else item.value
        onnx.save(model, 'model.onnx')
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(script(), {})
        labels = cv2.imread('labels.png', cv2.IMREAD_UNCHANGED)
        assert labels.shape == (101, 150) and len(np.unique(labels)) > 1
        assert np.mean(labels == expected.label_map) > 0.999
        assert expected.classes[expected.label_map[0, 0]] in printed.getvalue()


def test_cv2_resizes_the_channels_of_many_classes():
    """As torch does, up to the 171 classes of COCO-Stuff."""
    maps = torch.randn(1, 171, 7, 9)
    expected = torch.nn.functional.interpolate(maps, size=(30, 20), mode='bilinear')
    found = cv2.resize(maps[0].permute(1, 2, 0).numpy(), (20, 30))
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0).numpy(), atol=1e-5)
