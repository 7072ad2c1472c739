"""The stored cases pass, and the check notices what it must notice."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import check  # noqa: E402

CASES = [
    pytest.param(
        path,
        marks=pytest.mark.part_of(f'slug:{path.parent.name}'),
        id=f'{path.parent.name}-{path.stem}',
    )
    for path in sorted((HERE / 'data').glob('*/*.json'))
]


@pytest.mark.parametrize('path', CASES)
def test_stored_case(path):
    if 'corruptions' in path.stem:
        pytest.importorskip('imagecorruptions', reason='corruptions need imagecorruptions-imaug')
    passed, text, _ = check.check(path)
    assert passed, text


def copy(tmp_path, change=None, **config):
    """One case under a new root, changed."""
    source = HERE / 'data' / 'lska' / 'lska_k7_c8.json'
    folder = tmp_path / 'lska'
    folder.mkdir()
    shutil.copy(source, folder)
    tensors = load_file(source.with_suffix('.safetensors'))
    if change:
        change(tensors)
    save_file(tensors, folder / 'lska_k7_c8.safetensors')
    case = json.loads(source.read_text())
    case['config'].update(config)
    (folder / source.name).write_text(json.dumps(case))
    return tmp_path


def test_report_and_status(tmp_path, capsys):
    assert check.main([str(copy(tmp_path)), 'lska']) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith('PASS lska lska_k7_c8 ')
    assert float(first.split()[3]) < 1e-6
    assert last == '1 passed, 0 failed'


@pytest.mark.parametrize('key', ['output/0', 'grad/input', 'weight/conv0h.weight'])
def test_a_small_difference_fails(tmp_path, capsys, key):
    def change(tensors):
        tensors[key].view(-1)[3] += 2e-4 * tensors[key].abs().max()

    assert check.main([str(copy(tmp_path, change))]) == 1
    assert 'FAIL lska lska_k7_c8' in capsys.readouterr().out


def test_unknown_arguments_and_slugs_fail(tmp_path, capsys):
    root = copy(tmp_path, qk_scale=2)
    (root / 'nosuch').mkdir()
    (root / 'nosuch' / 'x.json').write_text('{"system": "nosuch"}')
    assert check.main([str(root)]) == 1
    out = capsys.readouterr().out
    assert 'FAIL lska lska_k7_c8 ValueError: cannot map qk_scale=2' in out
    assert "FAIL nosuch x no mapping for 'nosuch'" in out
    assert check.main([str(root), 'missing']) == 1


def test_a_network_gets_every_weight_from_its_case(tmp_path):
    source = HERE / 'data' / 'vit' / 'net_vitdet.json'
    tensors = load_file(source.with_suffix('.safetensors'))
    folder = tmp_path / 'vit'
    folder.mkdir()
    shutil.copy(source, folder)
    # a pre-trained network may lack these, and the backbone starts them itself then
    kept = {k: v for k, v in tensors.items() if '.rel_pos_' not in k}
    save_file(kept, folder / 'net_vitdet.safetensors')
    passed, text, _ = check.check(folder / source.name)
    assert not passed
    assert 'the case has no stages.0.blocks.0.attn.relative.rel_h' in text
    save_file(tensors | {'weight/strange': torch.ones(1)}, folder / 'net_vitdet.safetensors')
    assert 'strange' in check.check(folder / source.name)[1]


def test_nan_is_a_difference():
    x = torch.ones(3)
    assert check.compare(torch.tensor([1.0, float('nan'), 1.0]), x) == float('inf')
    with pytest.raises(ValueError, match='shape'):
        check.compare(torch.ones(2), x)
