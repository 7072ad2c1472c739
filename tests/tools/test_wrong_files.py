"""Files that a tool cannot use, and places that it cannot write: one message, before the work."""

import os
import pickle
import shutil

import pytest
import torch

from hybrid_mm.run import launch

from ..conftest import load_tool


class Call:
    """Unpickled without care, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


SCALARS = {
    'half.json': ('{"loss": ', 'line 1 is not JSON of scalars'),
    'list.json': ('{"loss": 1, "step": 1}\n[1]\n{"loss": 2, "step": 2}\n', 'line 2 is not JSON'),
    'number.json': ('3', 'line 1 is not JSON of scalars'),
    'bytes.json': (b'\xff\xfe\0', 'is not a scalars.json'),
}


@pytest.mark.parametrize('tool_name', ['plot_curves', 'mixing_rates'])
def test_scalars_that_are_none(fails, tmp_path, tool_name):
    for name, (content, message) in SCALARS.items():
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        flags = ('--out', tmp_path / 'c.png')
        text = fails(f'analysis/{tool_name}', path, *flags)
        assert str(path) in text and message in text
    assert not (tmp_path / 'c.png').exists()


def test_a_run_that_was_killed_has_curves(tool, tmp_path):
    """Its last line is half written; steps that are no numbers are counted."""
    path = tmp_path / 'scalars.json'
    path.write_text('{"loss": 3, "step": "a"}\n{"loss": NaN, "step": 1}\n{"loss": 2, "st')
    status, err = tool('analysis/plot_curves', path, '--out', tmp_path / 'c.png')
    assert status == 0 and 'the last line is incomplete' in err
    assert (tmp_path / 'c.png').stat().st_size > 1000


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'file'
    path.write_text('mine')
    yield path
    assert path.read_text() == 'mine'


def test_pictures_and_files_that_cannot_be_written(fails, tmp_path, file):
    """Each tool says so before it reads or computes anything: its input is not even there."""
    (tmp_path / 'folder').mkdir()
    below, folder = file / 'x', tmp_path / 'folder'
    backbone = "dict(type='hybrid_mm.NoSuch')"
    for name, *arguments, option in (
        ('analysis/plot_curves', 'none', '--out'),
        ('analysis/mixing_rates', 'none', '--out'),
        ('analysis/compare_members', '--folder', 'none', '--out'),
        ('analysis/compare_members', '--folder', 'none', '--json'),
        ('analysis/report', 'none', '--out'),
        ('complexity', '--backbone', backbone, '--json'),
        ('print_config', 'none.py', '--save'),
    ):
        for suffix, place, message in (
            ('.png', below, 'is a file'),
            ('.py', below, 'is a file'),
            ('', folder, 'is a folder; expected a file'),
        ):
            suffix = '' if not suffix else '.py' if name == 'print_config' else suffix
            text = fails(name, *arguments, option, f'{place}{suffix}')
            assert text.startswith(f'error: {option} ') and message in text, (name, text)
    for name, *arguments in (
        ('analysis/kernel_size', '--families', 'none', '--out'),
        ('analysis/receptive_field', backbone, '--images', 'none', '--out'),
        ('analysis/texture_knn', 'none', backbone, '--out'),
        ('analysis/shape_texture', 'measure', 'none', backbone, '--out'),
        ('analysis/shape_texture', 'generate', 'none', 'none'),
        ('analysis/robustness', 'none.py', 'none.pth', '--out'),
        ('benchmark', 'elsa', '--quick', '--out'),
        ('demo',),
    ):
        text = fails(name, *arguments, file)
        assert 'is a file; expected a folder' in text, (name, text)
    for name, *arguments in (
        ('publish_model', 'none.pth'),
        ('convert_checkpoint', 'none.pth'),
        ('reparameterize', 'none.py', 'none.pth'),
    ):
        assert 'is a file' in fails(name, *arguments, below)
    assert 'is a file' in fails('export_onnx', 'none.py', f'{below}.onnx')


def test_an_input_is_not_replaced(fails, tmp_path, det_config):
    path = tmp_path / 'x.pth'
    path.write_text('mine')
    for name, *arguments in (
        ('convert_checkpoint', path),
        ('reparameterize', det_config, path),
    ):
        assert f'would replace {path}, which is read' in fails(name, *arguments, path)
    assert 'would replace' in fails('print_config', det_config, '--save', det_config)
    assert path.read_text() == 'mine'
    (tmp_path / 'shapes').mkdir()
    generate = ('analysis/shape_texture', 'generate', tmp_path / 'shapes', tmp_path / 'none')
    assert 'is inside of' in fails(*generate, tmp_path / 'shapes' / 'new')


def test_configs_of_something_else(fails, tmp_path):
    path = tmp_path / 'c.py'
    path.write_text("default_scope = 'mmdet'\nmodel = [1]\n")
    torch.save(dict(w=torch.ones(1)), tmp_path / 'w.pth')
    for name, *arguments in (
        ('predict', path, tmp_path / 'w.pth', tmp_path, '--out', tmp_path / 'o'),
        ('export_onnx', path, tmp_path / 'x.onnx'),
        ('complexity', path),
        ('reparameterize', path, tmp_path / 'w.pth', tmp_path / 'y.pth'),
    ):
        if name == 'predict':
            shutil.copy(tmp_path / 'w.pth', tmp_path / 'x.png')
        assert 'c.py has no model' in fails(name, *arguments)


def test_outputs_of_a_test(fails, det_config, seg_config, tmp_path, file, monkeypatch, work_dir_of):
    """Found before anything is evaluated."""
    monkeypatch.setattr(launch, 'testing_runner', None)
    det = (det_config, work_dir_of('det') / 'iter_2.pth', '--work-dir', tmp_path / 'w')
    seg = (seg_config, work_dir_of('seg') / 'iter_2.pth', '--work-dir', tmp_path / 'w')
    metrics = ('--out-item', 'metrics', '--out')
    for arguments, message in (
        ((*det, *metrics, tmp_path / 'm.txt'), 'm.txt: the name must end with .json or .yml'),
        ((*det, *metrics, file / 'm.json'), 'is a file; expected a folder'),
        ((*det, *metrics, tmp_path), 'is a folder; expected a file'),
        ((*det, '--out', file / 'p.pkl'), 'is a file; expected a folder'),
        ((*seg, '--out', file), 'is a file; expected a folder'),
        ((*det, '--show-dir', file), '--show-dir'),
        ((*det[:2], '--work-dir', file), 'work_dir'),
    ):
        assert message in fails('test', *arguments)


def test_label_maps_of_images_with_one_name(
    fails, tool, seg_config, tmp_path, tiny_ade, work_dir_of
):
    """MMSegmentation writes both into one file."""
    root = shutil.copytree(tiny_ade, tmp_path / 'ade')
    for kind in ('images', 'annotations'):
        (root / kind / 'validation' / 'more').mkdir()
        source = root / kind / 'validation' / '0.png'
        shutil.copy(source, root / kind / 'validation' / 'more' / '0.png')
    option = f'test_dataloader.dataset.data_root={root}'
    run = (seg_config, work_dir_of('seg') / 'iter_2.pth', '--work-dir', tmp_path / 'w')
    text = fails('test', *run, '--out', tmp_path / 'maps', '--cfg-options', option)
    assert 'validation/0.png and ' in text and 'have the same name, 0' in text
    flags = ('--show-dir', tmp_path / 'seen', '--interval', 99, '--cfg-options', option)
    status, err = tool('test', *run, *flags)
    assert status == 0 and 'have the same name, 0; only one is kept' in err


def test_predictions_of_somebody_else(fails, det_config, seg_config, tmp_path, monkeypatch):
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    ran, out = tmp_path / 'ran', tmp_path / 'out'
    files = {
        'evil.pkl': (pickle.dumps([Call(ran)]), 'evil.pkl holds posix.mkdir'),
        'half.pkl': (pickle.dumps([1] * 99)[:50], 'is not a pickle of predictions, or is damaged'),
        'other.pkl': (pickle.dumps(dict(a=1)), 'other.pkl cannot be used (AssertionError)'),
        'short.pkl': (pickle.dumps([3] * 4), 'short.pkl cannot be used (TypeError'),
        'p.json': (b'[]', 'expected a name that ends with .pkl or .pickle'),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        text = fails('analysis/confusion_matrix', det_config, tmp_path / name, out)
        assert message in text, text
    assert not ran.exists()
    assert 'expected a pickle' in fails('analysis/confusion_matrix', det_config, tmp_path, out)
    text = fails('analysis/confusion_matrix', seg_config, tmp_path / 'p.json', out)
    assert 'expected a folder of label maps' in text


def test_results_of_other_studies(fails, tmp_path):
    for content, message in (
        ('[1]', 'is not a result of an analysis'),
        ('{"kind": ["x"]}', 'unknown kind of result'),
        ('{"kind": "robustness", "settings": {}, "results": {"fog": 3}}', 'robustness'),
        ('{"kind": "kernel_size", "points": 3}', 'are incomplete'),
    ):
        study = 'kernel_size' if 'kernel' in content else 'robustness'
        (tmp_path / study).mkdir(exist_ok=True)
        (tmp_path / study / f'{study}.json').write_text(content)
        text = fails('analysis/report', tmp_path / study, '--out', tmp_path / 'r.html')
        assert message in text, text
    assert not (tmp_path / 'r.html').exists()


def test_paths_that_are_no_text(fails, det_config, tmp_path, monkeypatch, capsys):
    """OpenCV ends the process at such a path, and MMEngine cannot write it."""
    name = os.fsdecode(b'caf\xe9')
    text = fails('train', det_config, '--work-dir', tmp_path / name)
    assert r'caf\udce9 is not UTF-8' in text and 'work_dir' in text
    odd = tmp_path / f'{name}.py'
    shutil.copy(det_config, odd)
    assert r'caf\udce9.py is not UTF-8' in fails('train', odd, '--work-dir', tmp_path / 'w')
    option = f'train_dataloader.dataset.data_root={name}'
    text = fails('train', det_config, '--work-dir', tmp_path / 'w', '--cfg-options', option)
    assert r'train_dataloader.dataset.data_root caf\udce9 is not UTF-8' in text
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    assert 'is not UTF-8' in fails('train', det_config)
    # tools that write nothing there print such a name
    assert load_tool('print_config').main([str(odd), '--key', 'train_cfg']) == 0
