"""Metafiles: they list every config and nothing else; figures equal those counted elsewhere."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
import yaml

from hybrid_mm.weights import all_weights
from hybrid_mm.zoo.metafile import read_trees

from .conftest import CONFIG_FILES, CONFIGS, PAPERS
from .loading import EXAMPLES

ROOT = CONFIGS.parent
MODELS = {
    model['Name']: model
    for folder in PAPERS
    for model in yaml.load((folder / 'metafile.yml').read_text(), yaml.CSafeLoader)['Models']
}

# Totals counted on the papers' own code and the stock heads: parameters, and 1e9 multiply-adds
# at the size of the metafile (Semantic FPN 512 x 512, UperNet 512 x 2048 without auxiliary head)
RETINANET, MASK_RCNN = 'retinanet_van-{}_fpn_1x_coco', 'mask-rcnn_van-{}_fpn_1x_coco'
VAN_FPN = 'van-{}_fpn_8xb4-40k_ade20k-512x512'
LSKA_FPN = 'van-{}_fpn_4xb4-80k_ade20k-512x512'
UPERNET = 'van-{}_upernet_8xb2-160k_ade20k-512x512'
TOTALS = {
    RETINANET: {
        'b0': (13386068, 168.5), 'b1': (23598772, 202.4), 'b2': (36315444, 253.4),
        'b3': (54502580, 333.7), 'lska-tiny': (13309268, 167.9), 'lska-small': (23469748, 201.5),
        'lska-base': (36029748, 251.6), 'lka-tiny-k7': (13296468, 167.8),
        'lka-tiny-k11': (13322068, 168.0), 'lka-tiny': (13386068, 168.5),
        'lka-tiny-k35': (13501268, 169.4), 'lka-tiny-k53': (13770068, 171.6),
        'lka-tiny-k65': (14013268, 173.6), 'lska-tiny-k7': (13290068, 167.7),
        'lska-tiny-k11': (13296468, 167.8), 'lska-tiny-k35': (13322068, 168.0),
        'lska-tiny-k53': (13341268, 168.1), 'lska-tiny-k65': (13354068, 168.2),
    },
    MASK_RCNN: {
        'b0': (23885136, 186.7), 'b1': (33516208, 221.0), 'b2': (46232880, 272.0),
        'b3': (64420016, 352.2), 'lska-tiny': (23808336, 186.0), 'lska-small': (33387184, 220.1),
        'lska-base': (45947184, 270.2), 'lka-tiny-k7': (23795536, 186.0),
        'lka-tiny-k11': (23821136, 186.2), 'lka-tiny': (23885136, 186.7),
        'lka-tiny-k35': (24000336, 187.6), 'lka-tiny-k53': (24269136, 189.8),
        'lka-tiny-k65': (24512336, 191.8), 'lska-tiny-k7': (23789136, 185.9),
        'lska-tiny-k11': (23795536, 185.9), 'lska-tiny-k35': (23821136, 186.1),
        'lska-tiny-k53': (23840336, 186.3), 'lska-tiny-k65': (23853136, 186.4),
    },
    VAN_FPN: {
        'b0': (7984374, 25.7), 'b1': (17615446, 34.5), 'b2': (30332118, 47.5),
        'b3': (48519254, 68.1),
    },
    LSKA_FPN: {
        'lska-tiny': (7907574, 25.53), 'lska-small': (17486422, 34.24),
        'lska-base': (30046422, 47.08), 'lka-tiny-k7': (7894774, 25.51),
        'lka-tiny-k11': (7920374, 25.57), 'lka-tiny': (7984374, 25.70),
        'lka-tiny-k35': (8099574, 25.94), 'lka-tiny-k53': (8368374, 26.49),
        'lka-tiny-k65': (8611574, 27.00), 'lska-tiny-k7': (7888374, 25.49),
        'lska-tiny-k11': (7894774, 25.51), 'lska-tiny-k35': (7920374, 25.56),
        'lska-tiny-k53': (7939574, 25.60), 'lska-tiny-k65': (7952374, 25.63),
    },
    UPERNET: {
        'b0': (32133004, 857.3), 'b1': (43836652, 894.6), 'b2': (56553324, 946.8),
        'b3': (74740460, 1028.9), 'b5-in22k': (121890188, 1203.5), 'b6-in22k': (231481580, 1654.3),
    },
    UPERNET.replace('xb2', 'xb4'): {
        'b4': (90258028, 1096.2), 'b4-in22k': (90258028, 1096.2),
    },
    'van-{}_8xb128_in1k': {
        'b0': (4105800, 0.864), 'b1': (13861800, 2.495), 'b2': (26578472, 4.993),
        'b3': (44765608, 8.925), 'b4': (60283176, 12.144), 'b5': (89967688, 17.129),
        'b6': (199829416, 38.710),
    },
}  # fmt: skip

# What the paper prints, in 1e6 and 1e9, for models whose heads it does not describe
PRINTED = {
    'cascade-mask-rcnn_van-b2_fpn_4conv1fc-giou_ms-crop-3x_coco': (84, 752),
    'atss_van-b2_fpn_ms-crop-3x_coco': (34, 221),
    'gfl_van-b2_fpn_ms-crop-3x_coco': (34, 224),
    'mask-rcnn_van-b2_fpn_ms-crop-3x_coco': (46, 273),
}


def test_every_config_is_listed_once():
    listed = [
        model['Config']
        for folder in PAPERS
        for model in yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
    ]
    there = [str(p.relative_to(ROOT)) for p in CONFIG_FILES if p.parent.name not in EXAMPLES]
    assert sorted(listed) == sorted(there)
    assert all(Path(model['Config']).stem == name for name, model in MODELS.items())


def test_index_imports_every_metafile():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    assert sorted(index) == sorted(f'configs/{folder.name}/metafile.yml' for folder in PAPERS)


@pytest.mark.parametrize('pattern', TOTALS)
def test_totals(pattern):
    for variant, (parameters, gmac) in TOTALS[pattern].items():
        data = MODELS[pattern.format(variant)]['Metadata']
        assert data['Parameters'] == parameters, variant
        decimals = len(str(gmac).split('.')[1])
        assert data['FLOPs'] / 1e9 == pytest.approx(gmac, abs=0.51 * 10**-decimals), variant


@pytest.mark.parametrize('name', PRINTED)
def test_printed_totals(name):
    millions, gmac = PRINTED[name]
    data = MODELS[name]['Metadata']
    assert data['Parameters'] / 1e6 == pytest.approx(millions, abs=0.5)
    assert data['FLOPs'] / 1e9 == pytest.approx(gmac, rel=0.02)


def test_results_name_their_source():
    for model in MODELS.values():
        for result in model.get('Results', ()):
            assert set(result) == {'Task', 'Dataset', 'Metrics', 'Source'}, model['Name']


def test_generated_files_are_up_to_date(capsys):
    tool = runpy.run_path(str(ROOT / 'tools/dev/generate_docs.py'))
    assert tool['main'](['--check']) == 0, capsys.readouterr().out


def test_weights_stand_beside_their_own_accuracy():
    """Of several trainings of a config one is published, sometimes another than the papers'."""
    tool = runpy.run_path(str(ROOT / 'tools/dev/generate_docs.py'))
    (tree,) = (t for t in read_trees(ROOT, tool['Tree']) if t.folder.name == 'acmix')
    model = {m.name: m for m in tree.models}['retinanet_pvt-m_fpn_1x_coco']
    (_, source, quoted, nothing), (_, published, own, link) = tool['reported'](model)
    assert (source, quoted, nothing) == ('official README', {'box AP': 41.9}, '')
    assert (published, own) == ('published weights', {'box AP': 41.7})
    assert '20210831_103243-55effa1b.pth' in link
    model.results[0]['Metrics']['box AP'] = 41.72
    assert [file for *_, file in tool['reported'](model)] == [link]


def test_commands_of_readmes_take_weights_that_are_published():
    weights_of = runpy.run_path(str(ROOT / 'tools/dev/generate_docs.py'))['weights_of']
    known, found = all_weights(), 0
    for readme in ROOT.glob('configs/*/README.md'):
        for config in re.findall(r'hybrid_mm weights get (\S+)', readme.read_text()):
            assert known[weights_of(ROOT / config)].files, config
            found += 1
    assert found > 15


@pytest.mark.slow  # writes all files of all trees
def test_check_finds_a_stale_file(tmp_path, capsys):
    for name in ('configs', 'docs', 'tools'):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / 'model-index.yml', tmp_path)
    (tmp_path / 'README.md').write_text('# A\n<!-- zoo:begin -->\n<!-- zoo:end -->\nafter\n')
    main = runpy.run_path(str(tmp_path / 'tools/dev/generate_docs.py'))['main']
    assert main(['--check']) == 1
    assert capsys.readouterr().out.splitlines()[0] == 'out of date: README.md'
    assert main([]) == 0
    text = (tmp_path / 'README.md').read_text()
    assert '| [VAN](configs/van) |' in text
    assert text.endswith('<!-- zoo:end -->\nafter\n')
    assert main(['--check']) == 0
    metafile = tmp_path / 'configs/van/metafile.yml'
    metafile.write_text(metafile.read_text().replace('box AP: 38.8', 'box AP: 39.8'))
    capsys.readouterr()
    assert main(['--check']) == 1
    assert 'configs/van/README.md' in capsys.readouterr().out
    # networks without a paper
    text = re.sub(r'    (Paper|Code):\n(      .*\n)+', '', metafile.read_text())
    assert 'Title' not in text
    metafile.write_text(text)
    assert main([]) == 0
    head = (tmp_path / 'configs/van/README.md').read_text().split('##')[0]
    assert re.search(r'\n# VAN\n\n(?!\[)\w', head)
    assert '| [VAN](configs/van) |  | ' in (tmp_path / 'README.md').read_text()
