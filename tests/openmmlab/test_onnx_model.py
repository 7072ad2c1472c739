"""ONNX files as models: what they return for what a test pipeline gives."""

import sys

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement

from hybrid_mm.errors import UserError
from hybrid_mm.openmmlab.onnx_model import OnnxModel, paste

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


def images(*sizes, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), generator=generator).to(dtype) for size in sizes]


def step(model, inputs, **meta):
    """Results for images; metadata by name, one value for all images or one for each."""
    if model.task == 'detection':
        from mmdet.structures import DetDataSample as Sample
    elif model.task == 'segmentation':
        from mmseg.structures import SegDataSample as Sample
    else:
        from mmpretrain.structures import DataSample as Sample
    samples = []
    for i, x in enumerate(inputs):
        own = {k: v[i] if isinstance(v, list) else v for k, v in meta.items()}
        samples.append(Sample(metainfo=dict(dict(ori_shape=tuple(x.shape[1:])), **own)))
    found = model.test_step(dict(inputs=inputs, data_samples=samples))
    assert all(a is b for a, b in zip(found, samples, strict=True))
    return found


def watch(model):
    """Feeds of the session, call by call."""
    seen, session = [], model.session

    class Watched:
        def run(self, names, feed):
            seen.append(feed)
            return session.run(names, feed)

    model.session = Watched()
    return seen


def test_objects_in_pixels_of_the_original(onnx_file):
    """Rows that fill up are left out; boxes are scaled back, masks pasted at the original size."""
    model = MODELS.build(dict(type='hybrid_mm.OnnxModel', file=str(onnx_file('detection'))))
    (x,) = images((48, 32))
    (sample,) = step(model, [x], ori_shape=(24, 64), scale_factor=(0.5, 2.0))
    found = sample.pred_instances
    red, green = x[2].float().mean() / 255, x[1].float().mean() / 255  # inputs are BGR
    torch.testing.assert_close(found.scores, torch.stack([red, green]))
    assert found.labels.tolist() == [2, 0]
    assert found.bboxes.tolist() == [[8, 1, 40, 5], [0, 0, 63, 23.5]]
    assert found.masks.shape == (2, 24, 64) and found.masks.dtype == torch.bool
    rows, columns = np.nonzero(found.masks[0].numpy())
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (8, 1, 39, 4)
    strict = onnx_file('detection', thresholds=dict(mask=0.75))
    (sample,) = step(OnnxModel(strict), [x])
    assert not sample.pred_instances.masks.any()  # all probabilities are 0.7
    assert sample.pred_instances.bboxes[0].tolist() == [4, 2, 20, 10]  # without scale_factor


def test_masks_of_the_whole_image(onnx_file):
    """As Mask2Former has them: in pixels of the original, like the boxes; and a panoptic map."""
    whole = onnx_file(
        'detection',
        ('image) => (', 'image, int64[2] size) => (int64[N,3] panoptic_map, '),
        ('<\n', '<\n  int64[2] size = {0,0},'),
        ('float[N,3,28,28] masks', 'bool[N,3,5,7] masks'),
        ('[1, 1, 28, 28]', '[1, 1, 5, 7]'),
        ('masks = Add(full, corner)', 'filled = Add(full, corner)\nmasks = Cast<to=9>(filled)'),
        ('labels = Add', 'panoptic_map = Add(classes, whole)\nlabels = Add'),
    )
    (sample,) = step(OnnxModel(whole), images((48, 32)), ori_shape=(5, 7), scale_factor=(0.5, 2.0))
    found = sample.pred_instances
    assert found.masks.shape == (2, 5, 7) and found.masks.all()
    assert found.bboxes.tolist() == [[4, 2, 20, 10], [0, 0, 31.5, 47]]
    assert sample.pred_panoptic_seg.sem_seg.flatten().tolist() == [2, 0, -1]


def test_masks_are_pasted_as_mmdetection_does():
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead
    from mmengine.config import ConfigDict
    from mmengine.structures import InstanceData

    torch.manual_seed(0)
    corner = torch.rand(6, 2) * 30 - 5
    boxes = torch.cat([corner, corner + torch.rand(6, 2) * 40], 1)
    logits = torch.randn(6, 1, 28, 28)
    head = FCNMaskHead(num_convs=0, in_channels=1, conv_out_channels=1, num_classes=1)
    (expected,) = head.predict_by_feat(
        (logits,),
        [InstanceData(bboxes=boxes.clone(), labels=torch.zeros(6, dtype=torch.long))],
        [dict(ori_shape=(37, 53), scale_factor=(1.0, 1.0))],
        ConfigDict(mask_thr_binary=0.4),
        rescale=True,
    )
    assert expected.masks.any()
    assert torch.equal(paste(logits.sigmoid()[:, 0], boxes, 37, 53, 0.4), expected.masks)
    assert paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), 5, 7).shape == (0, 5, 7)


def test_no_objects(onnx_file):
    file = onnx_file('detection', ('{2,0,-1}', '{-1,-1,-1}'))
    (sample,) = step(OnnxModel(file), images((8, 9)), scale_factor=(1.0, 1.0))
    found = sample.pred_instances
    assert (found.bboxes.shape, found.masks.shape) == ((0, 4), (0, 8, 9))


def test_images_of_one_size_run_together(onnx_file):
    """In their order; a segmenter's go together if their originals had one size as well."""
    sizes = [(8, 6), (5, 7), (8, 6), (8, 6)]
    model = OnnxModel(onnx_file('segmentation'))
    inputs = images(*sizes)
    seen = watch(model)
    shapes = [(16, 12), (5, 7), (16, 12), (4, 3)]
    found = step(model, inputs, ori_shape=shapes)
    assert [(feed['image'].shape, *feed['size']) for feed in seen] == [
        ((2, 8, 6, 3), 16, 12),
        ((1, 5, 7, 3), 5, 7),
        ((1, 8, 6, 3), 4, 3),
    ]
    for sample, x, shape in zip(found, inputs, shapes, strict=True):
        labels = sample.pred_sem_seg.data
        assert labels.dtype == torch.int64 and labels.shape == (1, *shape)
        if shape == (16, 12):
            expected = x.flip(0).int().argmax(0)
            assert torch.equal(labels[0, ::2, ::2], expected)


def test_fixed_batches_are_filled_up(onnx_file):
    model = OnnxModel(onnx_file('classification', ('uint8[N,H', 'uint8[2,H')))
    seen = watch(model)
    inputs = images(*[(4, 4)] * 3)
    found = step(model, inputs)
    assert [feed['image'].shape[0] for feed in seen] == [2, 2]
    for sample, x in zip(found, inputs, strict=True):
        expected = x.flip(0).float().mean((1, 2)).softmax(0)
        torch.testing.assert_close(sample.pred_score, expected)
        assert sample.pred_label.tolist() == [expected.argmax()]
    stacked = step(model, torch.stack(inputs))  # as mmpretrain's dataloaders give
    assert torch.equal(stacked[2].pred_score, found[2].pred_score)


def test_numbers_that_a_file_cannot_take(onnx_file):
    """Whole floats are bytes; others are refused by a file of bytes, and taken by one of floats."""
    model = OnnxModel(onnx_file('classification'))
    (x,) = images((4, 4), dtype=torch.float32)
    assert torch.equal(step(model, [x])[0].pred_score, step(model, [x.byte()])[0].pred_score)
    for wrong in (x + 0.5, x - 300, x + 1000):
        with pytest.raises(UserError, match=r'whole numbers from 0 to 255.*--input float'):
            step(model, [wrong])
    floats = OnnxModel(onnx_file('classification', ('uint8[N,H,W,3]', 'float[N,3,H,W]')))
    seen = watch(floats)
    step(floats, [x + 0.5])
    np.testing.assert_array_equal(seen[0]['image'][0], (x + 0.5).flip(0))


def test_one_size_only(onnx_file):
    model = OnnxModel(onnx_file('classification', ('[N,H,W', '[N,6,W')))
    assert len(step(model, images((6, 9)))) == 1
    with pytest.raises(UserError, match=r'cannot take .* gives, height 5 instead of 6; export'):
        step(model, images((5, 9)))
    with pytest.raises(UserError, match=r'gives, channels 4 instead of 3; export'):
        step(model, [torch.zeros(4, 6, 9, dtype=torch.uint8)])


def test_channels_in_the_order_of_the_files(onnx_file):
    """Three channels that are no colours are not turned around."""
    x = images((6, 9))
    for order, expected in (('RGB', x[0].flip(0)), (None, x[0])):
        model = OnnxModel(onnx_file('classification', input=dict(order=order)))
        seen = watch(model)
        step(model, x)
        np.testing.assert_array_equal(seen[0]['image'][0], expected.permute(1, 2, 0))


def test_label_maps_of_another_size(onnx_file):
    """Files of before had no input `size`; they are good where nothing is resized."""
    inside = (('image, int64[2] size)', 'image)'), ('{64,64}', '{4,6}'))
    model = OnnxModel(onnx_file('segmentation', *inside))
    assert step(model, images((4, 6)))[0].pred_sem_seg.data.shape == (1, 4, 6)
    with pytest.raises(UserError, match='no input "size"; export the model again'):
        step(model, images((4, 6)), ori_shape=(8, 12))


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), 'cannot be opened'),
        (lambda path: path.write_text('hello'), 'Is it a whole file in ONNX'),
        (lambda path: path.unlink(), 'does not exist'),
    ],
)
def test_files_that_are_none(onnx_file, change, text):
    path = onnx_file('detection')
    change(path)
    with pytest.raises(UserError, match=text) as error:
        OnnxModel(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('metadata', 'text'),
    [
        (dict(task=None, hybrid_mm=None, classes=None), 'was not written by tools/export_onnx.py'),
        (dict(task=None, hybrid_mm=None), 'without --raw'),  # raw files of before
        (dict(task=None), 'without --raw'),
        (dict(task='segmentation'), 'without --raw'),
        (dict(hybrid_mm='0.2.0'), 'written by hybrid_mm 0.2.0, and this is 0.1.0; update'),
        (dict(hybrid_mm='1.0.0.dev1'), 'written by hybrid_mm 1.0.0.dev1'),
    ],
)
def test_files_of_others(onnx_file, metadata, text, monkeypatch):
    monkeypatch.setattr('hybrid_mm.openmmlab.onnx_model.__version__', '0.1.0')
    with pytest.raises(UserError, match=text):
        OnnxModel(onnx_file('detection', **metadata))


def test_properties_that_are_no_json(onnx_file):
    path = onnx_file('detection')
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, dict(task='detection', author='someone'))
    onnx.save(model, str(path))
    with pytest.raises(UserError, match='was not written by'):
        OnnxModel(path)


def test_devices(onnx_file, monkeypatch, capsys):
    """A GPU that was named must be there; one that torch has and onnxruntime lacks is left out."""
    import onnxruntime

    path = onnx_file('detection')
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CPUExecutionProvider'])
    with pytest.raises(UserError, match='cuda:0: onnxruntime has no CUDAExecutionProvider, only'):
        OnnxModel(path, 'cuda:0')
    with pytest.raises(UserError, match='on cpu or cuda here, not on mps'):
        OnnxModel(path, 'mps')
    assert OnnxModel(path, 'cpu').device == torch.device('cpu')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert OnnxModel(path).device == torch.device('cpu')
    assert 'no CUDAExecutionProvider' in (said := capsys.readouterr().err) and 'on the CPU' in said


def test_onnxruntime_is_missing(onnx_file, monkeypatch):
    path = onnx_file('detection')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match=r'not installed; pip install "hybrid-mm\[export\]"'):
        OnnxModel(path)


def test_it_predicts_only(onnx_file):
    model = OnnxModel(onnx_file('classification'))
    with pytest.raises(UserError, match='cannot be trained'):
        model([torch.zeros(3, 4, 4)], [BaseDataElement()], mode='loss')
