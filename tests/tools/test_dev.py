"""Tools of maintainers: choice of tests, planted mistakes, counts of kernels."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hybrid_mm.commands import count_kernels
from hybrid_mm.zoo.yaml_files import read_yaml

ROOT = Path(__file__).resolve().parents[2]
DEV = ROOT / 'tools' / 'dev'


def load(name):
    sys.path.insert(0, str(DEV))
    try:
        spec = importlib.util.spec_from_file_location(f'dev_{name}', DEV / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for it
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(DEV))


select, mutants = load('select_tests'), load('mutants')


@pytest.fixture(scope='module')
def sources():
    return select.Sources(ROOT)


def chosen(sources, name):
    """Files by stage, and the parts of the first stage."""
    stages = sources.stages(sources.files_of(name))
    return {stage.name: stage.files for stage in stages}, stages[0].parts


def test_tests_of_a_paper(capsys):
    assert select.main(['lesa']) == 0
    words = capsys.readouterr().out.split()
    assert words[-2] == '--parts'
    assert {'tree:lesa', 'network:LESAResNet', 'slug:lesa'} <= set(words[-1].split(','))
    assert not {'tree:nat', 'network:NAT', 'slug:nat'} & set(words[-1].split(','))
    wanted = {
        'tests/backbones/test_lesa_resnet.py',
        'tests/layers/test_lesa.py',
        'tests/convert/test_lesa.py',
        'tests/backbones/test_all.py',
        'tests/golden/test_check.py',
        'tests/configs/test_configs.py',
    }
    assert wanted <= set(words)
    assert not {'tests/backbones/test_nat.py', 'tests/tools/test_setup.py'} & set(words)


def test_tests_of_a_layer_reach_its_networks(sources):
    files, parts = chosen(sources, 'hybrid_mm/layers/convolution/large_kernel_attention.py')
    assert 'tests/layers/test_large_kernel_attention.py' in files['near']
    assert {'network:VAN', 'slug:van', 'slug:lska'} <= parts
    assert 'network:HorNet' not in parts


def test_tests_of_a_base_config_reach_all_trees_with_it(sources):
    _, parts = chosen(sources, 'configs/_base_/schedules/schedule_1x.py')
    assert {'tree:gcnet', 'tree:acmix'} <= parts
    assert 'tree:vit' not in parts


def test_tests_of_a_module_that_no_test_names_are_those_of_its_room(sources):
    files, _ = chosen(sources, 'hybrid_mm/checkpoint_files/kinds.py')
    assert 'tests/checkpoint_files/test_foreign_files.py' in files['near']
    files, _ = chosen(sources, 'hybrid_mm/data/coco_values.py')
    assert 'tests/data/test_coco_check.py' in files['near']
    assert 'tests/data/test_corruptions.py' not in files['near']


def test_tests_of_a_tool_and_of_what_it_imports(sources):
    files, _ = chosen(sources, 'publish_model')
    assert 'tests/tools/test_other_tools.py' in files['near']
    files, _ = chosen(sources, 'hybrid_mm/engine/atomic_files.py')
    assert 'tests/engine/test_atomic_checkpoint.py' in files['near']
    assert 'far' in files


def test_unknown_name(capsys):
    assert select.main(['hornett']) == 2
    assert "nothing is called 'hornett': did you mean hornet" in capsys.readouterr().err


def test_changed_files(tmp_path):
    def git(*args):
        subprocess.run(
            ['git', '-c', 'user.name=a', '-c', 'user.email=b', *args],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    git('init')
    for name in ('a.py', 'b.py', 'c.py'):
        (tmp_path / name).write_text('1\n')
    git('add', '.')
    git('commit', '-m', 'first')
    (tmp_path / 'a.py').write_text('2\n')
    (tmp_path / 'b.py').unlink()
    (tmp_path / 'new.py').write_text('3\n')
    assert select.changed_since(tmp_path, 'HEAD') == {tmp_path / 'a.py', tmp_path / 'new.py'}


def test_parts_leave_out_other_parts_only(request):
    plugin = request.config.pluginmanager.get_plugin(str(ROOT / 'tests' / 'conftest.py'))
    dropped = []

    def item(*parts):
        marks = [pytest.mark.part_of(part).mark for part in parts]
        return SimpleNamespace(iter_markers=lambda name: marks)

    free, both, other = item(), item('tree:van', 'network:VAN'), item('tree:nat')
    config = SimpleNamespace(
        getoption=lambda name: {'tree:van'},
        hook=SimpleNamespace(pytest_deselected=lambda items: dropped.extend(items)),
    )
    items = [free, both, other]
    plugin.pytest_collection_modifyitems(config, items)
    assert items == [free, both]
    assert dropped == [other]


def test_lists_of_mistakes_fit_the_files():
    listed = mutants.read_lists([])
    assert len(listed) >= 200
    rooms = {m.file.split('/')[1] for m in listed if '/' in m.file}
    assert rooms >= {'layers', 'backbones', 'engine', 'convert'}
    defects = {m.name: text for m in listed if (text := m.defect(ROOT))}
    assert not defects
    assert not {m.file for m in listed if m.file.startswith('tests/')}
    for path in mutants.LISTS.glob('*.yml'):
        read_yaml(path)  # of an entry with `old` twice one would be lost


def test_defects_of_a_list(tmp_path):
    (tmp_path / 'a.py').write_text('x = 1\ny = 1\n')

    def defect(old, new, file='a.py'):
        return mutants.Mutant('room', 1, file, old, new, 'note').defect(tmp_path)

    assert not defect('x = 1', 'x = 2')
    assert '2 times' in defect('= 1', '= 2')
    assert '0 times' in defect('z', 'w')
    assert 'no file' in defect('x', 'y', 'b.py')
    assert 'the same' in defect('x = 1', 'x = 1')


@pytest.mark.slow
def test_report_of_planted_mistakes(tmp_path):
    """A checkout of two functions, one of which is tested, and a test that fails anyhow."""
    for name in ('select_tests', 'mutants'):
        (tmp_path / 'tools/dev').mkdir(parents=True, exist_ok=True)
        shutil.copy(DEV / f'{name}.py', tmp_path / 'tools/dev')
    files = {
        'hybrid_mm/__init__.py': '',
        'hybrid_mm/layers/__init__.py': '',
        'hybrid_mm/layers/a.py': 'def half(x):\n    return x / 2\n\n\n'
        'def twice(x):\n    return x * 2\n',
        'hybrid_mm/layers/b.py': 'def third(x):\n    return x / 3\n',
        'tests/layers/test_a.py': 'from hybrid_mm.layers.a import half\n\n\n'
        'def test_half():\n    assert half(6) == 3\n',
        'tests/layers/test_b.py': 'def test_broken():\n    assert False\n',
        'tests/conftest.py': 'def pytest_addoption(parser):\n    parser.addoption("--parts")\n',
        'configs/_base_/x.py': '',
        'pyproject.toml': '[tool.pytest.ini_options]\n'
        'addopts = "--import-mode=importlib"\nmarkers = ["slow"]\n',
        'tools/dev/mutants/layers.yml': """
- {file: hybrid_mm/layers/a.py, old: x / 2, new: x // 4, note: half}
- {file: hybrid_mm/layers/a.py, old: x * 2, new: x * 3, note: twice}
- {file: hybrid_mm/layers/b.py, old: x / 3, new: x / 4, note: third}
""",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(['git', 'init', '-q'], cwd=tmp_path, check=True)
    command = [sys.executable, 'tools/dev/mutants.py', '--jobs', '1']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.split() == ['layers', '3', '2', '0'] for line in lines), done.stdout
    assert 'layers:2       hybrid_mm/layers/a.py: twice (SURVIVED)' in lines
    assert any('third (UNJUDGED' in line for line in lines)


def test_counts_of_kernels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(count_kernels, 'PAGE', tmp_path / 'page.md')
    path = tmp_path / 'counts.json'
    options = ['global filter', 'no such name', '--amp', 'float16', '--json', str(path)]
    assert load('count_kernels').main([*options, '-w', '2', '--page']) == 0
    assert ' kernels: ' in capsys.readouterr().out
    (found,) = json.loads(path.read_text())
    assert found['name'] == 'global filter HorNet 1/16'
    page = (tmp_path / 'page.md').read_text()
    kernels = f'| {found["forward"]["kernels"]} / {found["backward"]["kernels"]} |'
    assert kernels in page and '--amp float16 --page' in page


def test_counts_fail_where_devices_are_mixed(monkeypatch, capsys):
    broken = count_kernels.OPERATORS[0].__class__('mixed', lambda x: x + torch.ones(3), [(3,)])
    monkeypatch.setattr(count_kernels, 'OPERATORS', [broken])
    assert load('count_kernels').main(['mixed']) == 1
    assert 'mixed: failed' in capsys.readouterr().out
