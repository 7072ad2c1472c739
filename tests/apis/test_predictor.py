"""hybrid_mm.apis: sources, batches, results, COCO files, videos."""

import json
import os

import cv2
import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from hybrid_mm.apis import Detection, FailedInput, Predictor, Segmentation, UnreadableInput, Writer
from hybrid_mm.apis.sources import read_sources

SIZES = [(64, 64), (48, 80), (64, 64), (70, 40), (48, 80), (64, 64), (33, 57)]


def checkpoint_of(config, path):
    """File of random weights whose outputs differ from pixel to pixel, without class names."""
    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    for name, weight in model.named_parameters():
        if 'conv_cls.weight' in name or 'conv_seg.weight' in name:
            weight.data.mul_(50)
    torch.save({'state_dict': model.state_dict()}, path)
    return path


@pytest.fixture
def detector(det_config, tmp_path):
    return det_config, checkpoint_of(det_config, tmp_path / 'det.pth')


@pytest.fixture
def segmenter(seg_config, tmp_path):
    return seg_config, checkpoint_of(seg_config, tmp_path / 'seg.pth')


def pictures(sizes=SIZES):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def predictor(pair, **settings):
    return Predictor(*pair, device='cpu', **settings)


def test_batches_of_several_sizes_give_what_images_give_alone(detector, segmenter):
    images = pictures()
    for pair, expected in ((detector, Detection), (segmenter, Segmentation)):
        alone = predictor(pair)(images)
        together = predictor(pair, batch_size=3)(images)
        assert [r.index for r in together] == list(range(len(images)))
        for a, b, image in zip(alone, together, images, strict=True):
            assert isinstance(a, expected)
            assert a.classes == ('square', 'disc', 'bar')
            assert np.array_equal(b.image, image)
            if expected is Detection:
                assert len(a) == len(b) > 0
                assert (a.boxes <= [*image.shape[1::-1]] * 2).all() and a.boxes.min() >= 0
                np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-3)
                np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
                assert np.array_equal(a.labels, b.labels)
                assert a.masks is None
            else:
                assert a.label_map.shape == image.shape[:2]
                assert (a.label_map == b.label_map).mean() > 0.999


def watch(predict):
    """The inputs of the network, call by call."""
    seen, step = [], predict.model.test_step

    def test_step(data):
        seen.append([x.clone() for x in data['inputs']])
        return step(data)

    predict.model.test_step = test_step
    return seen


def test_images_that_go_together(segmenter):
    """At most batch_size of one size at once, of those that are read ahead."""
    sizes = [(40, 40), (48, 64), (40, 40), (40, 40), (48, 64), (40, 40), (40, 40), (40, 40)]
    images = pictures(sizes)
    for batch_size, expected in (
        (1, [1] * 8),
        (2, [2, 2, 2, 2]),  # all eight are read ahead
        (3, [3, 3, 2]),
        (6, [6, 2]),
    ):
        predict = predictor(segmenter, batch_size=batch_size)
        seen = watch(predict)
        found = predict(images)
        assert [len(batch) for batch in seen] == expected
        assert all(len({x.shape for x in batch}) == 1 for batch in seen)
        assert [r.image.shape[:2] for r in found] == sizes
        assert [r.index for r in found] == list(range(8))


@pytest.mark.parametrize('to_float32', [False, True])
def test_arrays_are_what_the_pipeline_loads(segmenter, tmp_path, to_float32):
    """Blue, green, red; as floats, if the pipeline loads floats; resized by the pipeline."""
    (image,) = pictures([(40, 60)])
    cv2.imwrite(str(tmp_path / 'x.png'), image)
    resize = dict(type='Resize', scale=(30, 20), keep_ratio=True)
    cfg = Config.fromfile(segmenter[0])
    load, annotations, pack = cfg.test_dataloader.dataset.pipeline
    load.to_float32 = to_float32
    cfg.test_dataloader.dataset.pipeline = [load, resize, annotations, pack]
    predict = Predictor(cfg, segmenter[1], device='cpu')
    seen = watch(predict)
    results = [predict(x)[0] for x in (image, tmp_path / 'x.png')]
    assert [x.dtype for (x,) in seen] == [torch.float32 if to_float32 else torch.uint8] * 2
    assert torch.equal(seen[0][0], seen[1][0])
    expected = cv2.resize(image.astype(np.float32), (30, 20)).transpose(2, 0, 1)
    # floats are interpolated without rounding to whole numbers
    difference = np.abs(seen[0][0].numpy() - expected).max()
    assert (difference < 1e-3) if to_float32 else (0.1 < difference <= 1)
    for result in results:
        assert np.array_equal(result.image, image) and result.image.dtype == np.uint8
        assert result.label_map.shape == (40, 60)


def test_classes_and_colours_of_the_checkpoint(segmenter, tmp_path):
    """They go before those of the config, which are taken if it has none."""
    weights = torch.load(segmenter[1])
    assert predictor(segmenter).classes == ('square', 'disc', 'bar')
    assert predictor(segmenter).meta['palette'] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    for meta, names, palette in (
        (dict(classes=('a', 'b', 'c')), ('a', 'b', 'c'), [[255, 0, 0], [0, 255, 0], [0, 0, 255]]),
        (dict(classes=('a', 'b', 'c'), palette=[[1, 2, 3]] * 3), ('a', 'b', 'c'), [[1, 2, 3]] * 3),
        (dict(palette=[[1, 2, 3]] * 3), ('square', 'disc', 'bar'), [[1, 2, 3]] * 3),
    ):
        torch.save(dict(weights, meta=dict(dataset_meta=meta)), tmp_path / 'named.pth')
        predict = predictor((segmenter[0], tmp_path / 'named.pth'))
        assert predict.classes == names and predict.meta['palette'] == palette
    (result,) = predict(pictures([(40, 40)]))
    assert result.classes == ('square', 'disc', 'bar')
    nameless = Config.fromfile(segmenter[0])
    del nameless.test_dataloader.dataset['metainfo']
    with pytest.raises(ValueError, match='neither the checkpoint nor the config names the classes'):
        Predictor(nameless, segmenter[1])


def test_threshold_and_channels_of_what_is_drawn(detector):
    """The drawing gets the image in RGB and the threshold that was asked for, and is BGR again."""
    predict = predictor(detector)
    (image,) = pictures([(40, 60)])
    (result,) = predict(image)
    seen = []

    class Visualizer:
        def add_datasample(self, name, picture, sample, draw_gt, pred_score_thr):
            assert sample is result.sample and draw_gt is False
            seen.append((picture.copy(), pred_score_thr))

        def get_image(self):
            return np.full((2, 2, 3), (1, 2, 3), np.uint8)

    predict._visualizer = Visualizer()
    for threshold in (0.05, 0.7):
        drawn = predict.draw(result, threshold)
        assert drawn[0, 0].tolist() == [3, 2, 1]
    predict.draw(result)
    assert [threshold for _, threshold in seen] == [0.05, 0.7, 0.3]
    assert all(np.array_equal(picture, image[..., ::-1]) for picture, _ in seen)


def test_files_and_arrays_give_the_same(segmenter, tmp_path):
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    images = pictures([(40, 60), (64, 64)])
    files = [tmp_path / 'a' / 'x.png', tmp_path / 'a' / 'b' / 'x.png']
    for file, image in zip(files, images, strict=True):
        cv2.imwrite(str(file), image)
    predict = predictor(segmenter)
    from_list = predict([str(files[0]), files[1]])
    assert [r.name for r in from_list] == ['x.png', 'b/x.png']
    for a, b in zip(predict(iter(images)), from_list, strict=True):
        assert np.array_equal(a.label_map, b.label_map)
    assert [r.name for r in predict(tmp_path / 'a')] == ['b/x.png', 'x.png']
    assert [r.name for r in predict(images)] == ['array0', 'array1']
    (alone,) = predict(files[1])
    assert alone.name == 'x.png'
    assert np.array_equal(alone.label_map, from_list[1].label_map)
    assert sum(alone.shares().values()) == pytest.approx(1)


def test_bad_inputs(segmenter, tmp_path):
    predict = predictor(segmenter)
    good = np.zeros((40, 40, 3), np.uint8)
    for bad in (np.zeros((40, 40), np.uint8), np.zeros((40, 40, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r'an array must be an image \(H, W, 3\), uint8'):
            predict(bad)
    for bad in (3, [good, 3]):
        with pytest.raises(ValueError, match=r'inputs must be arrays .*got int'):
            predict(bad)
    with pytest.raises(ValueError, match=r'none\.png does not exist'):
        predict([tmp_path / 'none.png'])
    (tmp_path / 'broken.png').write_bytes(b'no image')
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    for name in ('broken.png', 'broken.mp4'):
        with pytest.raises(UnreadableInput, match=f'{name} cannot be read'):
            predict(tmp_path / name)
    names = []
    inputs = [good, tmp_path / 'broken.png', tmp_path / 'broken.mp4', good]
    found = predict(inputs, on_error=lambda name, error: names.append(name))
    assert names == ['broken.png', 'broken.mp4']
    assert [r.index for r in found] == [0, 3]
    with pytest.raises(ValueError, match='batch_size must be at least 1, got 0'):
        predictor(segmenter, batch_size=0)
    with pytest.raises(ValueError, match=r'checkpoint .*no\.pth does not exist'):
        Predictor(segmenter[0], tmp_path / 'no.pth')


def test_a_stream_is_read_as_it_is_used(segmenter):
    seen = []

    def camera():
        for i in range(100):
            seen.append(i)
            yield np.zeros((32, 32, 3), np.uint8)

    stream = predictor(segmenter).stream(camera())
    next(stream)
    next(stream)
    assert len(seen) == 2


def write_video(path, frames, size=(48, 64)):
    rng = np.random.default_rng(0)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 12.0, size[::-1])
    for _ in range(frames):
        video.write(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    video.release()
    return path


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_video(detector, segmenter, tmp_path, task):
    path = write_video(tmp_path / 'clip.avi', 5)
    predict = predictor(detector if task == 'detection' else segmenter, batch_size=2)
    with Writer(predict, tmp_path / 'out', threshold=0.0) as writer:
        for result in predict.stream([path, np.zeros((40, 40, 3), np.uint8)]):
            writer.add(result)
    maps = ['label_maps'] if task == 'segmentation' else []
    assert writer.places == ['predictions.json', 'videos', *maps, 'pictures']
    entries = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert {e.get('frame') for e in entries} == {0, 1, 2, 3, 4, None}
    assert {e['file_name'] for e in entries} == {'clip.avi', 'array5'}
    drawn = cv2.VideoCapture(str(tmp_path / 'out' / 'videos' / 'clip.mp4'))
    assert drawn.get(cv2.CAP_PROP_FPS) == 12
    shapes = []
    while (frame := drawn.read()[1]) is not None:
        shapes.append(frame.shape)
    assert shapes == [(48, 64, 3)] * 5
    assert (tmp_path / 'out' / 'pictures' / 'array5.png').is_file()
    if task == 'segmentation':
        maps = [e['label_map'] for e in entries]
        assert len(set(maps)) == 6
        assert all((tmp_path / 'out' / name).is_file() for name in maps)


def test_colours_of_pictures(segmenter, tmp_path):
    """Blue stays blue in what is drawn."""
    predict = predictor(segmenter)
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 255
    (result,) = predict(image)
    predict.meta['palette'] = [[0, 0, 0]] * 3
    drawn = predict.draw(result)
    assert drawn.shape == image.shape
    assert drawn[..., 0].mean() > 3 * drawn[..., 2].mean()


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_pycocotools_evaluates_what_is_written(detector, tiny_coco, tmp_path, iou_type):
    """The truth but for one of the 12 objects, as results: precision 1, recall 11/12."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = tiny_coco / 'annotations' / 'val.json'
    truth, predict = COCO(str(path)), predictor(detector)
    with Writer(predict, tmp_path, threshold=0.5, annotations=path) as writer:
        for result in predict.stream(tiny_coco / 'val'):
            number = truth.dataset['images'][int(result.name[0])]['id']
            objects = truth.loadAnns(truth.getAnnIds(number))
            left, top, width, height = np.array([o['bbox'] for o in objects], np.float32).T
            scores = np.full(len(objects), 0.9, np.float32)
            scores[0] = 0.1 if number == 0 else 0.9  # below the threshold
            result.boxes = np.stack([left, top, left + width, top + height], 1)
            result.scores = scores
            result.labels = np.array([o['category_id'] - 1 for o in objects])
            result.masks = np.stack([truth.annToMask(o).astype(bool) for o in objects])
            writer.add(result)
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / 'predictions.json')), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # interpolated precision of the class with 3 of 4 objects: 76 of 101 recalls
    assert evaluation.stats[0] == pytest.approx((2 + 76 / 101) / 3)
    assert evaluation.stats[8] == pytest.approx(11 / 12)


def test_annotations_that_do_not_fit(detector, tiny_coco, tmp_path):
    predict, out = predictor(detector), tmp_path / 'out'
    with pytest.raises(ValueError, match=r'none\.json cannot be read as a COCO file'):
        Writer(predict, out, annotations=tmp_path / 'none.json')
    data = dict(images=[dict(id=1, file_name='sub/y.png')], categories=[dict(id=3, name='bar')])
    path = tmp_path / 'some.json'
    path.write_text(json.dumps(data))
    with pytest.raises(
        ValueError, match=r'has no categories square, disc, which the model predicts.*bar'
    ):
        Writer(predict, out, annotations=path)
    data['categories'] = [dict(id=i, name=n) for i, n in enumerate(('square', 'disc', 'bar'), 5)]
    path.write_text(json.dumps(data))
    writer = Writer(predict, out, threshold=0.0, annotations=path)
    cv2.imwrite(str(tmp_path / 'y.png'), pictures([(64, 64)])[0])
    writer.add(predict(tmp_path / 'y.png')[0])
    assert {e['image_id'] for e in writer.entries} == {1}
    assert {e['category_id'] for e in writer.entries} <= {5, 6, 7}
    with pytest.raises(ValueError, match=r'no image of .* have the name of array0'):
        writer.add(predict(pictures([(64, 64)]))[0])


def test_augmentation_is_invariant_under_flips(detector, segmenter):
    (image,) = pictures([(64, 64)])
    for pair in (detector, segmenter):
        predict = predictor(pair, tta=True)
        (a,), (b,) = predict(image), predict(image[:, ::-1].copy())
        if pair is segmenter:
            assert (a.label_map == b.label_map[:, ::-1]).mean() > 0.999
        else:
            assert len(a) == len(b) > 0
            flipped = np.stack(
                [64 - b.boxes[:, 2], b.boxes[:, 1], 64 - b.boxes[:, 0], b.boxes[:, 3]], 1
            )
            np.testing.assert_allclose(np.sort(a.scores), np.sort(b.scores), atol=1e-5)
            np.testing.assert_allclose(np.sort(a.boxes, 0), np.sort(flipped, 0), atol=1e-2)


def test_sources_number_what_they_find(tmp_path):
    video = write_video(tmp_path / 'v.mp4', 3)
    found = list(read_sources([np.zeros((4, 4, 3), np.uint8), video]))
    assert [s.index for s in found] == [0, 1, 2, 3]
    assert [s.label for s in found] == ['array0', *(f'v.mp4, frame {i}' for i in range(3))]


def reported(predict, inputs):
    """Names of results, and of inputs without one with the text of the error."""
    errors = {}
    found = predict(inputs, on_error=lambda name, error: errors.update({name: error}))
    return [result.name for result in found], errors


def test_an_image_that_no_transform_can_take(segmenter, tmp_path):
    cfg = Config.fromfile(segmenter[0])
    resize = dict(type='Resize', scale=(64, 64), keep_ratio=True)
    cfg.test_dataloader.dataset.pipeline.insert(1, resize)
    for name, size in (('a.png', (40, 60)), ('thin.png', (1, 5000)), ('z.png', (40, 60))):
        cv2.imwrite(str(tmp_path / name), np.zeros((*size, 3), np.uint8))
    predict = Predictor(cfg, segmenter[1], device='cpu', batch_size=2)
    names, errors = reported(predict, [tmp_path / n for n in ('a.png', 'thin.png', 'z.png')])
    assert names == ['a.png', 'z.png'] and list(errors) == ['thin.png']
    text = 'thin.png: the test pipeline cannot prepare an image of 5000 x 1 pixels'
    assert str(errors['thin.png']).startswith(text)
    with pytest.raises(FailedInput, match=text):
        predict(tmp_path / 'thin.png')
    predict._prepare = lambda data: None  # as transforms of MMEngine that leave a sample out
    with pytest.raises(FailedInput, match='a transform leaves it out'):
        predict(tmp_path / 'a.png')


@pytest.mark.parametrize('batch_size', [1, 3])
def test_an_image_on_which_the_model_fails(detector, batch_size):
    """It alone is reported, also out of a batch."""
    images = pictures([(64, 64)] * 4)
    images[2][:] = 7
    predict = predictor(detector, batch_size=batch_size)
    step = predict.model.test_step

    def test_step(data):
        if any((x == 7).all() for x in data['inputs']):
            raise RuntimeError('too small\nand more')
        return step(data)

    predict.model.test_step = test_step
    names, errors = reported(predict, images)
    assert names == ['array0', 'array1', 'array3'] and list(errors) == ['array2']
    text = r'array2: the model fails on the prepared image of shape \(3, 64, 64\): RuntimeError: '
    with pytest.raises(FailedInput, match=text + 'too small$') as caught:
        predict(images)
    assert isinstance(caught.value.__cause__, RuntimeError)

    def broken(data):
        raise RuntimeError('CUDA error: device-side assert triggered')

    predict.model.test_step = broken  # no image after that one can work
    with pytest.raises(RuntimeError, match=r'^CUDA error'):
        reported(predict, images)


def test_kinds_of_files(segmenter, tmp_path, capsys):
    """As training reads them: 8 bits, three channels, upright, the first frame, complete."""
    from PIL import Image

    rgb = [np.repeat(np.repeat(x, 8, 0), 8, 1) for x in pictures([(5, 6)] * 3)]
    frames = [Image.fromarray(x) for x in rgb]
    first, rest = frames[0], dict(save_all=True, append_images=frames[1:])
    expected = {}

    def add(name, image, pixels, **settings):
        image.save(tmp_path / name, **settings)
        expected[name] = pixels

    turned = Image.Exif()
    turned[274] = 6
    grey = np.asarray(first.convert('L'))
    alpha = np.concatenate([rgb[0], grey[..., None]], 2)
    palette = first.quantize(16)
    wide = (grey.astype(np.uint16) << 8) + 77
    add('alpha.png', Image.fromarray(alpha), rgb[0])
    add('animated.png', first, rgb[0], **rest)
    add('animated.webp', first, rgb[0], lossless=True, **rest)
    add('cmyk.tif', first.convert('CMYK'), rgb[0])
    add('grey.png', Image.fromarray(grey), grey[..., None].repeat(3, 2))
    add('pages.tif', first, rgb[0], **rest)
    add('palette.png', palette, np.asarray(palette.convert('RGB')))
    add('turned.png', first, np.rot90(rgb[0], -1), exif=turned)
    add('wide.png', Image.fromarray(wide), grey[..., None].repeat(3, 2))
    first.convert('CMYK').save(tmp_path / 'cmyk.jpg', quality=100)
    expected['cmyk.jpg'] = rgb[0]
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'alpha.png').read_bytes()[:-20])
    cut = tmp_path / 'cut.jpg'
    cut.write_bytes((tmp_path / 'cmyk.jpg').read_bytes()[:-20])
    predict = predictor(segmenter)
    errors = {}
    found = predict.stream(tmp_path, on_error=lambda name, error: errors.update({name: str(error)}))
    found = {result.name: result.image[..., ::-1] for result in found}
    assert found.keys() == expected.keys()
    for name, pixels in expected.items():
        tolerance = 40 if name == 'cmyk.jpg' else 0  # colours are blurred
        np.testing.assert_allclose(found[name].astype(int), pixels, atol=tolerance, err_msg=name)
    assert set(errors) >= {'cut.png', 'cut.jpg'}
    assert 'cut.jpg is truncated' in errors['cut.jpg']
    several = 'animated.png, animated.webp, pages.tif'
    err = capsys.readouterr().err
    assert f'3 files have several frames or pages, of which the first was taken: {several}' in err
    assert '16 bits' not in err
    (tmp_path / 'dark').mkdir()
    Image.fromarray(wide >> 4).save(tmp_path / 'dark/12-bits.png')
    (result,) = predict(tmp_path / 'dark')
    assert (result.image == (grey >> 4)[..., None]).all()
    assert '12-bits.png has 16 bits per channel but no value above' in capsys.readouterr().err


def test_files_that_cannot_be_opened(segmenter, tmp_path, monkeypatch):
    """Each is reported, whatever the reason, and a pipe is not waited for."""
    (tmp_path / 'broken.png').symlink_to(tmp_path / 'nowhere.png')
    (tmp_path / 'empty.png').touch()
    (tmp_path / 'text.png').write_text('no image')
    os.mkfifo(tmp_path / 'pipe.png')
    for name in ('closed.png', 'good.png', os.fsdecode(b'caf\xe9.png')):
        (tmp_path / name).write_bytes(cv2.imencode('.png', np.zeros((40, 60, 3), np.uint8))[1])
    read = mmengine.fileio.LocalBackend.get

    def get(self, path):
        if str(path).endswith('closed.png'):
            raise PermissionError(13, 'Permission denied', path)
        return read(self, path)

    monkeypatch.setattr(mmengine.fileio.LocalBackend, 'get', get)
    names, errors = reported(predictor(segmenter), tmp_path)
    assert names == ['caf\udce9.png', 'good.png']
    reasons = {
        'broken.png': 'it does not exist, or is a dead link',
        'closed.png': 'Permission denied',
        'empty.png': 'is truncated',
        'pipe.png': 'it is not a file',
        'text.png': 'it is not an image that can be decoded here',
    }
    assert {name: reasons[name] in str(error) for name, error in errors.items()} == dict.fromkeys(
        reasons, True
    )
