"""The registry of published weights: every field is valid, every name is there and in use."""

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from hybrid_mm.convert import SOURCES
from hybrid_mm.errors import UserError
from hybrid_mm.weights import registry
from hybrid_mm.weights.registry import OURS, SCHEME, PublishedFile, all_weights, find_weights
from hybrid_mm.zoo.metafile import METRICS, read_trees
from hybrid_mm.zoo.yaml_files import read_yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    path.stem: path
    for path in ROOT.glob('configs/*/*.py')
    if path.parent.name not in ('_base_', 'demo', 'camvid', 'rotated')
}
TREES = {path.stem: read_yaml(path) for path in registry.FOLDER.glob('published/*.yml')}
ENTRIES = [entry for entries in TREES.values() for entry in entries]
WEIGHTS = all_weights()
FILES = [(weights.name, file) for weights in WEIGHTS.values() for file in weights.files]
# names that a config of a user may have: MMSegmentation's and timm's ViT without a fine-tuning
WITHOUT_CONFIG = {'vit-base_in21k'}
LICENCES = {'Apache-2.0', 'MIT', 'BSD-3-Clause', 'CC-BY-NC-4.0', 'not stated'}
# of the networks that authors tested with a moving average, as their programs say
AVERAGES = {'elsa-swin-b_in1k': 'state_dict_ema'}
_REPOSITORY = r'[\w-]+/[\w.-]+@[0-9a-f]{12} [\w./-]+'
_SOURCE = rf'{_REPOSITORY}|[\w-]+==[\d.]+ [\w./-]+|https://huggingface\.co/[\w-]+/[\w.-]+'


def reads() -> Counter[str]:
    """Names that configs ask for, and in how many files."""
    text = ''.join(path.read_text() for path in ROOT.glob('configs/**/*.py'))
    return Counter(re.findall(rf'{SCHEME}([\w.-]+)', text))


def trains(config: str) -> set[str]:
    """Names of the weights that an ImageNet config trains; where two differ in length, by it."""
    return {
        re.sub(r'_\d+xb\d+(-\d+[ek])?', '', config),
        re.sub(r'_\d+xb\d+(?:-(\d+e))?', lambda m: f'_{m[1]}' if m[1] else '', config),
    }


def test_keys_are_known_and_have_their_types():
    entry = dict(Name=str, Files=list, Metrics=dict, Unpublished=str) | {'Trained by': str}
    strings = ('Page', 'File', 'SHA256', 'MD5', 'Layout', 'Key', 'Licence', 'Source', 'Note')
    file = dict.fromkeys(strings, str) | dict(URL=(str, list), Size=int)
    for item in ENTRIES:
        assert {key for key in item if not isinstance(item[key], entry[key])} == set(), item
        assert ('Files' in item) != ('Unpublished' in item), item
        assert all(item.values()), f'{item["Name"]}: empty field'
        for published in item.get('Files', ()):
            wrong = {key for key in published if not isinstance(published[key], file[key])}
            assert not wrong, (item['Name'], wrong)
            assert {'Layout', 'Licence', 'Source'} <= set(published), item['Name']
            assert {'URL', 'Page'} & set(published), item['Name']


def test_an_unknown_key_is_refused(tmp_path, monkeypatch):
    (tmp_path / 'published').mkdir()
    file = tmp_path / 'published/x.yml'
    monkeypatch.setattr(registry, 'FOLDER', tmp_path)
    read = all_weights.__wrapped__
    file.write_text('- {Name: a, Files: [{URL: https://x.org/a.pth, Layout: van, Source: x}]}')
    assert read()['a'].files[0] == PublishedFile('a.pth', 'van', 'x', ('https://x.org/a.pth',))
    file.write_text('- {Name: a, Files: [{URL: https://x.org/a.pth, Sha256: ab12}]}')
    with pytest.raises(KeyError, match='Sha256'):
        read()


def test_names_are_those_of_the_files_and_unique():
    names = [entry['Name'] for entry in ENTRIES]
    assert len(names) == len(set(names)) == len(WEIGHTS)
    assert list(WEIGHTS) == [e['Name'] for tree in sorted(TREES) for e in TREES[tree]]
    assert all(re.fullmatch(r'[a-z0-9][\w.-]*', name) for name in names)


def test_every_name_of_configs_is_here_and_every_entry_is_in_use():
    asked = set(reads())
    assert len(asked) > 150
    assert asked <= set(WEIGHTS)
    trained = {name for config in CONFIGS for name in trains(config)}
    unused = set(WEIGHTS) - asked - set(CONFIGS) - trained
    assert unused == WITHOUT_CONFIG


def test_entries_are_in_the_tree_of_their_config():
    """Detectors and segmenters; backbones where they are trained or, if nowhere, asked for."""
    for weights in WEIGHTS.values():
        config = CONFIGS.get(weights.name) or CONFIGS.get(weights.trained_by)
        if config is not None:
            assert weights.tree == config.parent.name, weights.name
        else:
            assert (ROOT / 'configs' / weights.tree).is_dir(), weights.name


def test_configs_that_train_weights_are_named():
    by_name: dict[str, set[str]] = {}
    for config in CONFIGS:
        for name in trains(config) - {config}:
            by_name.setdefault(name, set()).add(config)
    for weights in WEIGHTS.values():
        configs = by_name.get(weights.name, set())
        if weights.trained_by:
            assert weights.trained_by in configs, weights.name
        else:
            assert not configs, (weights.name, configs)


def test_layouts_exist():
    known = {*SOURCES, OURS}
    assert not [(name, file.layout) for name, file in FILES if file.layout not in known]


def test_addresses_and_names_of_files():
    for name, file in FILES:
        for address in (*file.urls, *filter(None, [file.page])):
            parts = urlsplit(address)
            assert parts.scheme == 'https' and '.' in parts.netloc, (name, address)
            assert not re.search(r'\s|[)>"\']$', address), (name, address)
        if file.urls:
            assert re.search(r'\.(pth|pyth|pkl|npz|bin|pth\.tar)$', file.name), (name, file.name)


def test_an_address_is_of_one_name_or_the_note_says_so():
    places: dict[str, set[str]] = {}
    for name, file in FILES:
        for address in {*file.urls, *filter(None, [file.page])}:
            places.setdefault(address, set()).add(name)
            assert len(places[address]) == 1 or file.note or file.name, (address, places[address])
    direct = Counter(address for _, file in FILES for address in file.urls)
    assert direct.most_common(1)[0][1] == 1


def test_files_of_different_weights_have_different_names():
    """They lie in one cache."""
    names: dict[str, str] = {}
    for name, file in FILES:
        if file.urls:
            assert names.setdefault(file.name, name) == name, file.name


def test_checksums_are_those_in_the_names():
    several = Counter()
    for name, file in FILES:
        assert re.fullmatch(r'([0-9a-f]{6,64})?', file.sha256), name
        assert re.fullmatch(r'([0-9a-f]{6,32})?', file.md5), name
        assert file.size is None or file.size > 0, name
        in_name = re.search(r'-([0-9a-f]{8})\.pth$', file.name)
        if in_name and not (file.note and 'checksum' in file.note):
            assert file.sha256.startswith(in_name[1]), (name, file.name)
        several.update([file.sha256] if file.sha256 else [])
    assert several.most_common(1)[0][1] == 1


def test_several_addresses_are_of_one_file_by_its_checksum():
    """A download goes on at the next address where the one before broke off."""
    assert not [name for name, file in FILES if len(file.urls) > 1 and not file.sha256]


def test_sources_name_a_commit_and_a_path():
    for name, file in FILES:
        for source in file.source.split('; '):
            assert re.fullmatch(_SOURCE, source), (name, source)


def test_unpublished_ones_say_where_it_was_looked_up():
    for weights in WEIGHTS.values():
        if weights.unpublished and '@' not in weights.unpublished:
            text = r'published|member of our study|names neither code nor weights'
            assert re.search(text, weights.unpublished), weights.name


def test_licences_are_known_and_noncommercial_ones_are_told():
    for name, file in FILES:
        assert file.licence in LICENCES, (name, file.licence)
        from_mae = name.startswith('mae-') or name.startswith(
            ('mask-rcnn_vitdet', 'cascade-mask-rcnn_vitdet')
        )
        assert from_mae == ('CC-BY-NC-4.0' in file.licence + file.note), name


def test_better_files_come_first():
    for weights in WEIGHTS.values():
        direct = [bool(file.urls) for file in weights.files]
        assert direct == sorted(direct, reverse=True), f'{weights.name}: by hand comes last'
        if weights.files and len(weights.files) > 1:
            assert 'third party' not in weights.files[0].note, weights.name


def test_averages_are_named_where_the_accuracy_is_theirs():
    assert {name: file.key for name, file in FILES if file.key} == AVERAGES


def test_accuracies_are_percentages_of_metrics_of_the_zoo():
    known = {name for names in METRICS.values() for name in names}
    for weights in WEIGHTS.values():
        assert set(weights.metrics) <= known, weights.name
        assert all(20 < value < 95 for value in weights.metrics.values()), weights.name
        if weights.files and weights.name.endswith('_in1k') and 'mae-' not in weights.name:
            assert weights.metrics or weights.tree in ('lska', 'lesa', 'van'), weights.name


def test_reported_accuracies_are_near_those_of_the_zoo():
    """The zoo has its figures from papers and READMEs: a name beside a wrong file would differ."""
    zoo = {model.name: model for tree in read_trees(ROOT) for model in tree.models}
    compared = 0
    for weights in WEIGHTS.values():
        model = zoo.get(weights.name) or zoo.get(weights.trained_by)
        if model is None:  # a backbone that no config of ours trains
            continue
        for metric, value in weights.metrics.items():
            others = [found[metric] for found in model.metrics().values() if metric in found]
            compared += bool(others)
            distance = min((abs(value - other) for other in others), default=0)
            assert distance <= 1.1, (weights.name, metric, value, others)
    assert compared > 300


def test_input_of_published_backbones_is_known():
    for weights in WEIGHTS.values():
        if weights.files and weights.name not in CONFIGS:
            assert weights.preprocessing.get('Normalisation'), weights.name
            assert (
                'Crop' in weights.preprocessing
                or 'in1k' not in weights.name
                or (weights.name == 'resnet50-sk_in1k')
            ), weights.name


def test_metafiles_name_the_files_that_mim_can_hand_out():
    """Of detectors and segmenters whose names are ours: others would have to be converted."""
    models = [model for tree in read_trees(ROOT) for model in tree.models]
    expected = {
        name: file.urls[0]
        for name, file in FILES
        if name in CONFIGS and file.urls and file.layout == OURS
    }
    assert {model.name: model.weights for model in models if model.weights} == expected
    assert len(expected) > 30
    for model in models:
        if model.weights:  # MIM shows its results as those of the file
            results = list(model.metrics().values())
            assert dict(WEIGHTS[model.name].metrics) in results, model.name


def test_cases():
    cases = Counter((weights.case, weights.name in CONFIGS) for weights in WEIGHTS.values())
    assert cases == {
        ('automatic', False): 117,
        ('manual', False): 31,
        ('ours to train', False): 60,
        ('unpublished', False): 3,
        ('automatic', True): 151,
        ('manual', True): 41,
        ('unpublished', True): 3,
    }
    asked = Counter(WEIGHTS[name].case for name in reads())
    assert asked == {'automatic': 71, 'manual': 22, 'ours to train': 60, 'unpublished': 3}


def test_a_name_is_found_with_its_scheme_and_a_wrong_one_has_a_hint():
    assert find_weights('van-b0_in1k') is find_weights('hybrid_mm://van-b0_in1k')
    with pytest.raises(UserError, match=r'van-b9_in1k: .*did you mean van-b'):
        find_weights('hybrid_mm://van-b9_in1k')


def test_a_short_name_of_a_file_comes_from_its_address():
    (file,) = find_weights('dinat-large_in22k').files
    assert file.name == 'dinat_large_in22k_224.pth'


def test_the_registry_is_read_at_the_first_look(monkeypatch):
    reads = []
    monkeypatch.setattr(yaml, 'load', lambda *args: reads.append(args) or [])
    spec = importlib.util.spec_from_file_location('registry_again', registry.__file__)
    again = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, again)
    spec.loader.exec_module(again)
    assert not reads
    again.all_weights()
    again.all_weights()
    assert len(reads) == len(TREES)


def test_the_files_are_plain_yaml():
    assert all(yaml.safe_load(path.read_text()) for path in registry.FOLDER.glob('*.yml'))
