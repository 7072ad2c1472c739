"""Annotations in XML files of Pascal VOC: broken files and classes without objects are named."""

import pytest
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from hybrid_mm.errors import UserError

OBJECT = (
    '<object><name>{}</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>40</xmax><ymax>40</ymax>'
    '</bndbox></object>'
)
FILE = '<annotation><size><width>64</width><height>48</height></size>{}</annotation>'


@pytest.fixture
def build(tmp_path):
    def make(*contents, **settings):
        for folder in ('JPEGImages', 'Annotations'):
            (tmp_path / folder).mkdir(exist_ok=True)
        for i, content in enumerate(contents):
            Image.new('RGB', (64, 48)).save(tmp_path / f'JPEGImages/{i}.jpg')
            (tmp_path / f'Annotations/{i}.xml').write_text(content)
        (tmp_path / 'list.txt').write_text(''.join(f'{i}\n' for i in range(len(contents))))
        spec = dict(
            type='XMLDataset',
            data_root=str(tmp_path),
            ann_file='list.txt',
            data_prefix=dict(sub_data_root=''),
            metainfo=dict(classes=('cat', 'dog')),
            pipeline=[dict(type='LoadImageFromFile')],
            **settings,
        )
        with DefaultScope.overwrite_default_scope('mmdet'):
            return DATASETS.build(dict(type='hybrid_mm.CheckedDataset', dataset=spec))

    return make


def test_objects_of_other_classes(build, capsys):
    cat, dog, typo = (FILE.format(OBJECT.format(name)) for name in ('cat', 'dog', 'Dog'))
    data = build(cat, dog)
    assert len(data) == 2 and data[1]['instances'][0]['bbox_label'] == 1
    assert not capsys.readouterr().err
    build(cat, typo)
    text = '1 classes have no object to train on: dog (2 images; objects: 1 cat)'
    assert text in capsys.readouterr().err
    build(cat, typo, test_mode=True)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    'content', ['', '<annotation>', FILE.format('<object><name>cat</name></object>')]
)
def test_broken_files(build, content):
    with pytest.raises(UserError, match=r'Annotations/1\.xml is not in the format of Pascal VOC'):
        build(FILE.format(OBJECT.format('cat')), content)
