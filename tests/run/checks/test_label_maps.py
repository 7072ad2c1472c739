"""Label maps before a run: what is refused, what is a warning, and what is good."""

import shutil

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks import data

NAMES = ('a', 'b', 'c')


def save(path, labels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = labels if isinstance(labels, Image.Image) else Image.fromarray(np.asarray(labels))
    image.save(path, **options)


def labels_of(*values):
    """A map of 5 x 7 pixels that holds the values, and 0."""
    labels = np.zeros((5, 7), np.uint8)
    labels.flat[: len(values)] = values
    return labels


@pytest.fixture
def make(tmp_path):
    """A data set with a label map for each argument, and its config."""

    def build(*maps, loader='train_dataloader', classes=NAMES, skip=0, **changes):
        for i, labels in enumerate(maps):
            save(tmp_path / 'images' / f'{i:02d}.jpg', np.zeros((5, 7, 3), np.uint8))
            save(tmp_path / 'maps' / f'{i:02d}.png', labels)
        dataset = dict(
            type='BaseSegDataset',
            data_root=str(tmp_path),
            data_prefix=dict(img_path='images', seg_map_path='maps'),
            metainfo=dict(classes=classes),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(3, 3)),  # as in test pipelines of MMSegmentation
                dict(type='LoadAnnotations'),
                dict(type='NoSuchTransform'),
            ],
        )
        return Config(
            {
                'default_scope': 'mmseg',
                'model': dict(
                    decode_head=dict(
                        num_classes=len(classes), ignore_index=changes.get('ignore_index', 255)
                    )
                ),
                'skip_bad_samples': skip,
                loader: dict(dataset={**dataset, **changes}),
            }
        )

    return build


def check(cfg, loader='train_dataloader'):
    data.check_data(cfg, loader)


GOOD = labels_of(1, 2)


@pytest.mark.parametrize(('label', 'changes', 'allowed'), [
    (2, dict(), True),
    (3, dict(), False),
    (255, dict(), True),
    (3, dict(reduce_zero_label=True), True),
    (4, dict(reduce_zero_label=True), False),
    (254, dict(), False),
    (254, dict(ignore_index=254), True),
    (253, dict(ignore_index=254), False),
])  # fmt: skip
def test_labels_at_the_border(make, label, changes, allowed):
    cfg = make(labels_of(1, 2, label), **changes)
    if allowed:
        check(cfg)
        return
    label -= 'reduce_zero_label' in changes
    ignored = changes.get('ignore_index', 255)
    text = rf'00\.png has the label {label} \(after .*; expected 0\.\.2 and {ignored} \(ignored\)'
    with pytest.raises(UserError, match=text):
        check(cfg)


@pytest.mark.parametrize('loader', ['train_dataloader', 'val_dataloader'])
@pytest.mark.parametrize(('maps', 'changes', 'message'), [
    # what tools for binary masks write: 255 would be ignored
    ([labels_of(255)] * 3, dict(classes=('back', 'object')), '0 and 255 only'),
    ([labels_of()] * 12 + [labels_of(255)], dict(), '0 and 255 only'),
    ([labels_of(254)], dict(ignore_index=254), '0 and 254 only'),
    ([np.full((5, 7), 255, np.uint8)], dict(), 'nothing but ignored pixels'),
    # 0 and 1 become ignored and 0
    ([labels_of(1)], dict(reduce_zero_label=True), '0 and 255 only.*set it to False if 0 counts'),
    ([labels_of()], dict(), 'the label 0 only, one of 3 classes'),
    ([labels_of()] * 50 + [labels_of(255, 2)], dict(), None),  # the last one tells
])  # fmt: skip
def test_one_class_of_several(make, capsys, loader, maps, changes, message):
    cfg = make(*maps, loader=loader, **changes)
    refused = message and 'the label 0 only' not in message and loader == 'train_dataloader'
    if refused:
        with pytest.raises(UserError, match=rf'{message}.*{len(maps)} of {len(maps)} label maps'):
            check(cfg, loader)
        return
    check(cfg, loader)
    err = capsys.readouterr().err
    if message:
        assert 'warning: ' in err and message.partition('.*')[0] in err
    else:
        assert ' only' not in err


def test_classes_that_no_map_has(make, capsys):
    check(make(labels_of(1), labels_of(255)))
    err = capsys.readouterr().err
    assert '1 of 3 classes are in no label map: c (2 of 2 label maps were looked at)' in err
    check(make(*[labels_of(1)] * 40, labels_of(2)))
    assert not capsys.readouterr().err
    check(make(labels_of(1), loader='val_dataloader'), 'val_dataloader')
    assert not capsys.readouterr().err


def test_classes_over_all_parts_of_a_joined_data_set(make, tmp_path, capsys):
    cfg = make(labels_of(1), labels_of(2))
    one = cfg.train_dataloader.dataset
    (tmp_path / 'a.txt').write_text('00\n')
    (tmp_path / 'b.txt').write_text('01\n')
    parts = [dict(one, ann_file=f'{name}.txt') for name in 'ab']
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    check(cfg)
    assert not capsys.readouterr().err


def test_samples_are_taken_all_over_the_folder(make, tmp_path):
    cfg = make(*[GOOD] * 41)
    for number in (0, 20, 35):
        path = tmp_path / 'maps' / f'{number:02d}.png'
        save(path, labels_of(9))
        with pytest.raises(UserError, match=rf'{number:02d}\.png has the label 9'):
            check(cfg)
        save(path, GOOD)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-5])


BROKEN = {
    'truncated': (truncated, r'is truncated \(\d+ bytes\)'),
    'empty': (lambda p: p.write_bytes(b''), r'is truncated \(0 bytes\)'),
    'text': (lambda p: p.write_text('not found'), r'maps/02\.png is not an image'),
    'size': (lambda p: save(p, GOOD[:3]), r'has 3 x 7 pixels .* the image 5 x 7'),
    'label': (lambda p: save(p, labels_of(7)), 'has the label 7'),
    'colour': (lambda p: save(p, np.stack([GOOD, GOOD + 1, GOOD], 2)), 'no colours'),
    'grey as colour': (lambda p: save(p, np.stack([GOOD] * 3, 2)), 'all are the same: store one'),
    'alpha': (lambda p: save(p, Image.fromarray(GOOD).convert('LA')), r'has the shape \(5, 7, 2\)'),
    '16 bits': (lambda p: save(p, GOOD.astype(np.uint16) + 256), 'has 16 bits per pixel'),
    'missing': (lambda p: p.unlink(), r'1 of 3 label maps do not exist: .*02\.png'),
    'image missing': (
        lambda p: (p.parents[1] / 'images/02.jpg').unlink(),
        r'1 of 3 images do not exist: .*02\.jpg',
    ),
    'image truncated': (
        lambda p: truncated(p.parents[1] / 'images/02.jpg'),
        r'02\.jpg is truncated',
    ),
}


@pytest.mark.parametrize('name', BROKEN)
def test_broken_files(make, tmp_path, name):
    """As by the data set itself; and the run may leave them out."""
    spoil, message = BROKEN[name]
    (tmp_path / 'list.txt').write_text('00\n01\n02\n')
    cfg = make(GOOD, GOOD, GOOD, ann_file='list.txt')
    spoil(tmp_path / 'maps' / '02.png')
    with pytest.raises(UserError, match=message) as caught:
        check(cfg)
    assert '02.' in str(caught.value)
    cfg.skip_bad_samples = 1
    check(cfg)


@pytest.mark.parametrize('suffix', ['.tif', '.pgm', '.png'])
def test_values_of_16_bits(make, tmp_path, suffix):
    cfg = make(GOOD, GOOD, seg_map_suffix=suffix)
    for i, high in enumerate((2, 258)):
        labels = labels_of(1, 2).astype(np.uint16)
        labels[4, 4] = high
        save(tmp_path / 'maps' / f'{i:02d}{suffix}', labels)
    with pytest.raises(
        UserError, match=rf'01\{suffix} has \d+ bits per pixel and values from 0 to 258'
    ):
        check(cfg)
    save(tmp_path / 'maps' / f'01{suffix}', GOOD.astype(np.uint16))  # nothing is lost
    check(cfg)


def palette(labels):
    image = Image.fromarray(labels, 'P')
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


def test_palettes_and_single_bits_are_good(make, tmp_path, capsys):
    image = Image.fromarray(GOOD, 'P')
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    cfg = make(GOOD)
    save(tmp_path / 'maps' / '00.png', image)
    check(cfg)
    cfg = make(GOOD, classes=('a', 'b'))
    save(tmp_path / 'maps' / '00.png', Image.fromarray(labels_of(1).astype(bool)))
    check(cfg)
    assert not capsys.readouterr().err


def test_hidden_files_are_no_data(make, tmp_path, capsys):
    """What macOS and notebooks leave behind, in the folders of images and of label maps."""
    cfg = make(GOOD, GOOD)
    for kind, suffix in (('images', '.jpg'), ('maps', '.png')):
        (tmp_path / kind / f'._00{suffix}').write_bytes(b'Mac OS X')
        for folder in ('.ipynb_checkpoints', '__MACOSX'):
            (tmp_path / kind / folder).mkdir()
            (tmp_path / kind / folder / f'00{suffix}').write_bytes(b'Mac OS X')
    check(cfg)
    assert not capsys.readouterr().err


def test_folders_within_folders(make, tmp_path):
    cfg = make(GOOD)
    for i in (1, 2):
        save(tmp_path / f'images/x/{i}.jpg', np.zeros((5, 7, 3), np.uint8))
        save(tmp_path / f'maps/x/{i}.png', GOOD)
    check(cfg)
    save(tmp_path / 'maps/x/2.png', labels_of(5))
    with pytest.raises(UserError, match=r'maps/x/2\.png has the label 5'):
        check(cfg)


def test_files_that_are_not_read(make, tmp_path, capsys):
    cfg = make(GOOD, GOOD)
    for name in ('a.JPG', 'b.JPG', 'c.png'):
        save(tmp_path / 'images' / name, np.zeros((5, 7, 3), np.uint8))
    save(tmp_path / 'maps' / 'd.png', GOOD)
    check(cfg)
    err = capsys.readouterr().err
    assert '2 .JPG, 1 .png in ' in err and 'are not read, only *.jpg (img_suffix)' in err
    assert '1 label maps in ' in err and 'have no image and are not read: d.png' in err
    cfg.train_dataloader.dataset.img_suffix = '.jpeg'
    with pytest.raises(UserError, match=r'no image is left .*2 \.JPG, 2 \.jpg, 1 \.png are of ano'):
        check(cfg)


def test_label_maps_of_the_suffix_of_images(make, tmp_path, capsys):
    cfg = make(GOOD, GOOD, img_suffix='.png')
    for i in (0, 1):
        (tmp_path / f'images/{i:02d}.jpg').rename(tmp_path / f'images/{i:02d}.png')
    check(cfg)
    assert not capsys.readouterr().err
    (tmp_path / 'images/01.png').unlink()
    check(cfg)
    assert '1 label maps in ' in capsys.readouterr().err


def with_palette(labels, *colours):
    image = Image.fromarray(labels)
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def test_colours_of_palettes(make, tmp_path, capsys):
    """One colour is one label, in a loader and between those of training and validation."""
    black, red, green = (0, 0, 0), (255, 0, 0), (0, 255, 0)
    one, two = with_palette(GOOD, black, red, green), with_palette(GOOD, black, green, red)
    val = make(two, two, two, loader='val_dataloader')
    shutil.move(tmp_path / 'maps', tmp_path / 'val')
    val.val_dataloader.dataset.data_prefix.seg_map_path = 'val'
    cfg = make(one, one, one)
    cfg.val_dataloader = val.val_dataloader
    text = '01.png. Trained are the numbers'
    data.check_training(cfg)
    err = capsys.readouterr().err
    assert err.count('the palettes of label maps disagree') == 1
    assert (
        'val_dataloader: the palettes' in err and 'the colour (0, 255, 0) is the label 2 in' in err
    )
    save(tmp_path / 'maps/01.png', two)
    check(cfg)
    err = capsys.readouterr().err
    assert 'train_dataloader: the palettes' in err and text in err
    for i, colours in enumerate(((black, red, green), (black,) * 3, (red,))):
        # the others do not tell labels apart
        save(tmp_path / f'maps/{i:02d}.png', with_palette(GOOD, *colours))
    check(cfg)
    assert not capsys.readouterr().err


def test_images_and_label_maps_in_one_folder(make, tmp_path, capsys):
    cfg = make(GOOD, data_prefix=dict(img_path='maps', seg_map_path='maps'))
    shutil.copy(tmp_path / 'images/00.jpg', tmp_path / 'maps/00.jpg')
    check(cfg)
    assert not capsys.readouterr().err
    cfg.train_dataloader.dataset.update(img_suffix='.png', seg_map_suffix='_m.png')
    save(tmp_path / 'maps' / '00_m.png', GOOD)
    (tmp_path / 'maps/00.jpg').unlink()
    with pytest.raises(UserError, match='1 of 2 label maps do not exist'):  # those of label maps
        check(cfg)


def test_heads_ignore_what_the_data_set_ignores(make):
    cfg = make(labels_of(1, 2, 3), ignore_index=3)
    check(cfg)
    cfg.model.auxiliary_head = [dict(num_classes=3)]
    text = (
        r'has the label 3, which .* but the loss of model.auxiliary_head.0 leaves out 255 only; use'
    )
    with pytest.raises(UserError, match=text + r' .* model.auxiliary_head.0.ignore_index=3'):
        check(cfg)
    check(make(labels_of(1, 2, 3), ignore_index=3, loader='val_dataloader'), 'val_dataloader')


def test_heads_of_one_channel(make):
    cfg = make(labels_of(1), classes=('a', 'b'))
    head = cfg.model.decode_head
    head.out_channels = 1
    text = (
        r'model\.decode_head has out_channels=1, but a CrossEntropyLoss .* use_sigmoid=True in mod'
    )
    with pytest.raises(UserError, match=text):
        check(cfg)
    head.loss_decode = [dict(type='DiceLoss'), dict(type='mmseg.CrossEntropyLoss')]
    with pytest.raises(UserError, match=text.replace('a Cross', 'a mmseg.Cross')):
        check(cfg)
    head.loss_decode[1].use_sigmoid = True
    check(cfg)
    cfg.model.type = 'CascadeEncoderDecoder'
    with pytest.raises(UserError, match='a CascadeEncoderDecoder cannot predict'):
        check(cfg)
    three = make(labels_of(1, 2))
    three.model.decode_head.update(out_channels=1, loss_decode=head.loss_decode)
    with pytest.raises(UserError, match='out_channels=1 for 3 classes'):
        check(three)


def test_labels_of_a_subset_of_the_classes(make, monkeypatch):
    """``label_map``: classes that are left out become 255."""
    from mmseg.datasets import BaseSegDataset

    cfg = make(GOOD, labels_of(1), classes=('c', 'a'))
    monkeypatch.setattr(BaseSegDataset, 'METAINFO', dict(classes=NAMES))
    check(cfg)


def test_storage_that_is_not_local_is_not_read(make, tmp_path):
    cfg = make(labels_of(9), backend_args=dict(backend='petrel'))
    check(cfg)
    cfg.train_dataloader.dataset.backend_args = dict(backend='local')
    with pytest.raises(UserError, match='has the label 9'):
        check(cfg)


def test_label_maps_with_losses(make, tmp_path, capsys):
    cfg = make(GOOD, classes=('a', 'b', *map(str, range(250))), seg_map_suffix='.jpg')
    save(tmp_path / 'maps' / '00.jpg', GOOD)
    check(cfg)
    assert 'label maps *.jpg are compressed with losses' in capsys.readouterr().err


def test_images_of_class_folders(tmp_path, capsys):
    for name in ('a/0.JPG', 'a/1.webp', 'b/0.png', 'b/.1.webp', 'b/notes.txt'):
        save(tmp_path / 'x.png', np.zeros((5, 7, 3), np.uint8))
        path = tmp_path / 'train' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / 'x.png', path)
    dataset = dict(type='CustomDataset', data_prefix=str(tmp_path / 'train'), pipeline=[])
    loader = dict(dataset=dataset)
    check(Config(dict(default_scope='mmpretrain', model=dict(), train_dataloader=loader)))
    err = capsys.readouterr().err
    assert f'1 .webp in {tmp_path / "train"} are not read, only .jpg, ' in err
