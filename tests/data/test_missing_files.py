"""Files that a data set lists and that are not there: found before one is read, with a hint."""

import pytest
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.dataset import BaseDataset

from hybrid_mm.data import CheckedDataset
from hybrid_mm.data.checked import BadSampleError


class Listed(BaseDataset):
    """Images by their names, each with a label map of its stem."""

    def __init__(self, names, load, **settings):
        self.names = names
        super().__init__(pipeline=load, **settings)

    def load_data_list(self):
        folder = self.data_prefix['img_path']
        maps = f'{folder}/../maps'
        return [
            dict(img_path=f'{folder}/{name}', seg_map_path=f'{maps}/{name[0]}.png')
            for name in self.names
        ]


@pytest.fixture
def build(tmp_path):
    def make(names, skip=0, load=None, **settings):
        load = load or [LoadImageFromFile(imdecode_backend='pillow')]
        prefix = dict(img_path=str(tmp_path / 'images'))
        data = Listed(names, load, ann_file='x.json', data_prefix=prefix, lazy_init=True)
        data._indices = settings.pop('indices', None)
        data.test_mode = settings.pop('test_mode', False)
        return CheckedDataset(data, skip)

    for name in ('a.png', 'b.png', 'ü.png'):
        (tmp_path / 'images').mkdir(exist_ok=True)
        (tmp_path / 'images' / name).touch()
    return make


@pytest.mark.parametrize(
    ('name', 'hint'),
    [
        ('c.png', r'1 of 2 images do not exist: \S+/c\.png; check the names in x\.json'),
        ('a.jpg', r'images/a\.jpg; \S+images/a\.png exists; check'),  # another suffix
        ('a', r'images/a; \S+images/a\.png exists'),
        ('A.PNG', r'images/a\.png exists'),
        ('images/a.png', r'images/images/a\.png; \S+/images/a\.png exists'),  # the prefix twice
        ('C:\\data\\a.png', r'images/a\.png exists; .* separated by /, not by \\'),
        ('u\u0308.png', 'images/ü.png exists'),  # accents in the notation of macOS
        ('https://x.y/a.png', r'images/a\.png exists'),
    ],
)
def test_what_is_said(build, name, hint):
    with pytest.raises(BadSampleError, match=hint):
        build(['b.png', name])
    with pytest.raises(BadSampleError, match=r'do not exist.*[^N]$'):
        build([name], test_mode=True)


def test_what_may_be_missing(build):
    names = ['a.png', 'c.png', 'd.png']
    assert len(build(names, skip=2)) == 3  # counted when they are loaded
    with pytest.raises(BadSampleError, match=r'^2 broken samples, skip_bad_samples=1'):
        build(names, skip=1)
    for indices in (1, [0]):  # the others are not read
        assert len(build(names, indices=indices)) == 1
    with pytest.raises(BadSampleError, match=r'2 of 2 images'):
        build(names, indices=-2)
    remote = LoadImageFromFile(backend_args=dict(backend='petrel'))
    for load in ([remote], [LoadImageFromFile(ignore_empty=True)], [dict]):
        assert len(build(names, load=load)) == 3


def test_label_maps_only_where_they_are_loaded(build):
    image = LoadImageFromFile()
    assert build(['a.png'], load=[image, LoadAnnotations(with_seg=False)])
    with pytest.raises(BadSampleError, match=r'1 of 1 label maps do not exist: \S+maps/a\.png; ch'):
        build(['a.png'], load=[image, LoadAnnotations(with_seg=True)])
