"""The page that helps to choose a network: what is compared, what is recommended, and its marks."""

from pathlib import Path

import pytest

from hybrid_mm.weights.registry import PublishedFile, Weights
from hybrid_mm.zoo import choosing
from hybrid_mm.zoo.choosing import Comparison, Row, best, page, rows_of
from hybrid_mm.zoo.metafile import Model, Tree

COMPARISON = Comparison('FPN', 'Semantic FPN', r'_ade20k', ('mIoU',))
EXPORTS = {
    'VAN': {'backbone': '7e-07'},
    'VAN-LSKA': {'backbone': 'no: reason'},
    'NAT': {'backbone': 'fixed 8e-07'},
    'DiNATs': {'backbone': '8e-07'},
    'LeViT': {'backbone': '-'},
}


def model(name, parameters, flops, size='100x200', task='Semantic Segmentation', **accuracies):
    results = [
        dict(Task=task, Source=source.replace('_', ' '), Metrics=dict(mIoU=value))
        for source, value in accuracies.items()
    ]
    data = {'Training Data': 'ADE20K', 'Parameters': parameters, 'FLOPs': flops, 'Input Size': size}
    config = f'configs/x/{name}.py'
    return Model(dict(Name=name, Config=config, Metadata=data, Results=results))


def weights(name, licence='MIT', urls=('https://x/y.pth',)):
    file = PublishedFile('y.pth', 'ours', 'here', urls, page='https://x', licence=licence)
    return Weights(name, 'x', (file,))


@pytest.fixture
def start(monkeypatch):
    """Names of the weights that models start from; ``hand`` has to be fetched."""
    known = {
        'auto': weights('auto'),
        'hand': weights('hand', 'CC-BY-NC-4.0', ()),
        'none': Weights('none', 'x', unpublished='asked'),
    }
    monkeypatch.setattr(choosing, 'all_weights', lambda: known)
    monkeypatch.setattr(choosing, 'published_weights', lambda name: None)
    return lambda model: model.backbone.rpartition('-')[2]


MODELS = [
    model('small-auto_fpn_ade20k', 10e6, 1e9, paper=40.0),
    model('wide-auto_fpn_ade20k', 30e6, 3e9, paper=45.0),
    model('large-hand_fpn_ade20k', 30e6, 3e9, paper=50.0),
    model('worse-auto_fpn_ade20k', 40e6, 4e9, paper=44.0),
    model('lean-auto_fpn_ade20k', 41e6, 2e9, paper=44.0),
    model('far-none_fpn_ade20k', 60e6, 9e9, paper=51.0),
    model('doubt-auto_fpn_ade20k', 5e6, 1e9, **{'paper_(from_memory,_not_verified)': 90.0}),
    model('ours-auto_fpn_ade20k', 90e6, 9e9, measured=46.0, paper=99.0),
    model('other-auto_upernet_ade20k', 1e6, 1e6, paper=99.0),
    model('unknown-auto_fpn_ade20k', 1e6, 1e6),
]


def test_what_no_other_surpasses(start):
    rows = rows_of(MODELS, COMPARISON, start)
    assert [row.model.backbone for row in rows] == [
        *('small-auto', 'wide-auto', 'large-hand', 'worse-auto', 'lean-auto', 'far-none'),
        'ours-auto',
    ]
    assert rows[0].cost == (10e6, 1e9 / (100 * 200) * 1e6)
    found = [row.model.backbone for row in best(rows, 'mIoU')]
    assert found == ['small-auto', 'large-hand', 'lean-auto', 'far-none']
    assert [row.ready for row in rows] == [True, True, False, True, True, False, True]
    assert rows[-1].values['mIoU'] == (46.0, 'measured')  # not what is quoted


def test_recommended_are_those_that_can_be_downloaded(start):
    """The best up to 20, 50, 100 million parameters, each once."""
    rows = [row for row in rows_of(MODELS, COMPARISON, start) if row.ready]
    found = list(choosing._recommended(rows, 'mIoU'))
    assert [(cells[0], cells[1].partition(']')[0], cells[2]) for cells in found] == [
        ('up to 20 M', '[small-auto_fpn_ade20k', '40.0 (paper)'),
        ('up to 50 M', '[wide-auto_fpn_ade20k', '45.0 (paper)'),
        ('up to 100 M', '[ours-auto_fpn_ade20k', '46.0 (measured by us)'),
    ]


def test_cells(start):
    rows = {row.model.backbone: row for row in rows_of(MODELS, COMPARISON, start)}
    assert choosing._weights(rows['large-hand']) == 'whole: none; backbone: manual'
    assert choosing._licence(rows['large-hand']) == 'CC-BY-NC-4.0'
    assert choosing._licence(rows['far-none']) == '-'
    whole = Row(MODELS[0], {}, weights('a', 'MIT'), weights('b', 'Apache-2.0'))
    assert choosing._licence(whole) == 'Apache-2.0, MIT'
    mixed = Row(MODELS[0], {}, weights('a', 'MIT'), weights('b', 'CC-BY-NC-4.0', ()))
    assert choosing._licence(mixed) == 'MIT'  # of what is downloaded
    for backbone, text in (
        ('van-b0', 'any size'),
        ('van-lska-tiny', 'no'),
        ('nat-mini', 'fixed size'),
        ('dinat-s-tiny', 'any size'),
        ('levit-128s', '-'),
        ('swin-t', '-'),
    ):
        assert choosing._export(backbone, EXPORTS) == text, backbone


def test_page(start, tmp_path):
    (tmp_path / 'times.csv').write_text(
        'case,candidate,inference_ms\n'
        '"Small-auto, 4x224x224",ours,12.6\n"Small-auto, 4x224x224",timm,1\n'
        '"Small-auto, 2x640x960",ours,99\n'
    )
    tree = Tree(Path('configs/x/metafile.yml'), dict(Collections=[{}], Models=[]))
    tree.models = MODELS
    text = page([tree], start, EXPORTS, tmp_path / 'times.csv')
    assert '6 of 7 configs with a known mIoU.' in text  # of those to download one more
    (line,) = [x for x in text.splitlines() if x.startswith('| [small-auto')]
    assert line == (
        '| [small-auto_fpn_ade20k](../configs/x/small-auto_fpn_ade20k.py) | 40.0 (paper) | 10.0 | '
        '50 | whole: none; backbone: automatic | MIT | - | 13 |'
    )
