"""What ``new`` finds out about images of other channels, and what it writes."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from hybrid_mm import __main__ as program
from hybrid_mm.backbones import VAN
from hybrid_mm.errors import UserError
from hybrid_mm.zoo.new_backbone import find_backbone
from hybrid_mm.zoo.user_channels import find_channels

tifffile = pytest.importorskip('tifffile')


def images(folder, shape, number=3, dtype='uint16', suffix='.npy'):
    """Images whose channel c has the values 1000 c and 1000 c + 200, as many of each."""
    paths = []
    for i in range(number):
        image = np.zeros(shape, dtype) + (np.arange(shape[2]) * 1000).astype(dtype)
        image[::2] += 200
        path = folder / f'{i}{suffix}'
        if suffix == '.npy':
            np.save(path, image)
        else:
            tifffile.imwrite(path, image, planarconfig='contig', photometric='minisblack')
        paths.append(path)
    return paths


@pytest.mark.parametrize('suffix', ['.npy', '.tif'])
def test_found_and_measured(suffix, tmp_path):
    found = find_channels(images(tmp_path, (20, 30, 5), suffix=suffix), None)
    assert found.loader == dict(channels=5) and found.number == 5
    assert found.mean == [100, 1100, 2100, 3100, 4100] and found.std == [100] * 5
    assert '5 channels (uint16), from 0.0 to 4200.0' in found.text
    some = find_channels(sorted(tmp_path.iterdir()), [4, 0])
    assert (some.loader, some.mean) == (dict(channels=[4, 0]), [4100, 100])


def test_ordinary_images(tmp_path, capsys):
    """TIFF files of colours are read as before, unless channels are asked for; a loss is said."""
    paths = images(tmp_path, (20, 30, 3), suffix='.tif')
    assert find_channels(paths, None) is None and not capsys.readouterr().err
    paths = images(tmp_path, (20, 30, 4), suffix='.tif')
    assert find_channels(paths, None) is None
    assert 'fourth is left out as transparency; --channels 4 takes' in capsys.readouterr().err
    assert find_channels(paths, 4).loader == dict(channels=4)


def test_axes_and_holes(tmp_path):
    paths = images(tmp_path, (20, 30, 3), dtype='float32')
    for path in paths:
        np.save(path, np.load(path).transpose(2, 0, 1))
    assert find_channels(paths, None).loader == dict(channels=3, axes='chw')
    image = np.load(paths[0])
    image[0, 0, 0], image[1] = np.nan, 7
    for path in paths:
        np.save(path, image)
    found = find_channels(paths, None)
    assert found.loader['fill'] == 0 and found.std[1] == 1 and found.mean[1] == 7
    assert '3 images have values that are not finite' in found.text
    assert 'channels [1] are constant' in found.text


@pytest.mark.parametrize(
    ('asked', 'text'),
    [
        (4, r'--channels 4: the images have 6 .*--channels 6 takes all of them'),
        ([0, 6], 'the channels 0 to 5, there is no 6'),
    ],
)
def test_other_numbers(asked, text, tmp_path):
    with pytest.raises(UserError, match=text):
        find_channels(images(tmp_path, (20, 30, 6)), asked)


def test_images_that_differ(tmp_path):
    paths = images(tmp_path, (20, 30, 6))
    np.save(paths[1], np.zeros((20, 30, 5)))
    with pytest.raises(UserError, match=r'1.npy has 5, .*npy 6'):
        find_channels(paths, None)
    paths[1].write_bytes(b'cut')
    with pytest.raises(UserError, match=r'1.npy is no array'):
        find_channels(paths, None)


def test_backbones_of_other_libraries_start_from_random_weights(tmp_path):
    torch.save({'conv1.weight': torch.zeros(64, 3, 7, 7)}, tmp_path / 'r50.pth')
    backbone = find_backbone('r50', 'retinanet', str(tmp_path / 'r50.pth'), 5)
    assert backbone.settings['in_channels'] == 5 and backbone.start.checkpoint is None
    assert 'cannot be inflated to 5 in ResNet' in backbone.start.text


@pytest.mark.parametrize('text', ['0', 'a', '1,a', '', ','])
def test_wrong_options(text, tmp_path, capsys):
    flags = ['--backbone', 'van-b0', '--head', 'retinanet', '--data', str(tmp_path)]
    with pytest.raises(SystemExit):
        program.main(['new', *flags, '--out', 'x.py', '--channels', text])
    assert 'argument --channels: expected' in capsys.readouterr().err


def test_config_of_label_maps(tmp_path, capsys):
    """The whole command: nothing of three channels is left in the config."""
    for split in ('train', 'val'):
        (tmp_path / 'images' / split).mkdir(parents=True)
        (tmp_path / 'masks' / split).mkdir(parents=True)
        for path in images(tmp_path / 'images' / split, (40, 50, 6), 2, suffix='.tif'):
            labels = np.zeros((40, 50), 'uint8')
            labels[:20] = 1
            Image.fromarray(labels).save(tmp_path / 'masks' / split / f'{path.stem}.png')
    (tmp_path / 'classes.txt').write_text('ground\ntree\n')
    torch.save(VAN('b0').state_dict(), tmp_path / 'van.pth')
    flags = ['--backbone', 'van-b0', '--head', 'semantic-fpn', '--data', str(tmp_path)]
    flags += ['--checkpoint', str(tmp_path / 'van.pth'), '--channels', '5,0']
    assert program.main(['new', *flags, '--out', str(tmp_path / 'mine.py')]) == 0
    assert 'inflated to 2' in capsys.readouterr().out
    cfg = Config.fromfile(tmp_path / 'mine.py')
    load = dict(type='hybrid_mm.LoadMultichannelImage', channels=[5, 0])
    assert cfg.train_pipeline[0] == cfg.test_pipeline[0] == load
    assert not any(step.type == 'PhotoMetricDistortion' for step in cfg.train_pipeline)
    processor = cfg.model.data_preprocessor
    assert processor.type == 'hybrid_mm.MultichannelSegDataPreProcessor'
    assert (processor.mean, processor.std, processor.bgr_to_rgb) == ([5100, 100], [100] * 2, False)
    assert cfg.model.backbone.in_channels == 2
    assert cfg.model.backbone.init_cfg.inflate_channels is True
