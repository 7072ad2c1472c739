"""``new-project``: what it writes runs as it is, with our tools, from any folder."""

import importlib
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from hybrid_mm.__main__ import main
from hybrid_mm.analysis.complexity import count
from hybrid_mm.benchmarks.modules import benchmark_module, short_name
from hybrid_mm.errors import UserError
from hybrid_mm.ops import dispatch
from hybrid_mm.run.config import load_config
from hybrid_mm.testing import check_backbone, check_operator
from hybrid_mm.zoo.metafile import read_trees
from hybrid_mm.zoo.new_project import TEMPLATES, new_project

from ..conftest import ROOT
from ..docs.blocks import commands
from ..docs.commands import Checker


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A project on the path of Python, as PYTHONPATH puts it there."""
    folder = tmp_path_factory.mktemp('own') / 'rope-net'
    new_project(folder)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.split('.')[0] == 'rope_net']:
        del sys.modules[name]
    MODELS.children.pop('rope_net', None)


@pytest.fixture
def package(project):
    return importlib.import_module('rope_net')


def test_files(project):
    files = [path for path in project.rglob('*') if path.is_file()]
    written = [path for path in files if '__pycache__' not in path.parts]
    assert len(written) == len(list(TEMPLATES.rglob('*.txt'))) == 13
    for path in written:
        assert not re.search('my.?net', path.read_text() + path.name, re.I), path
    pytest.importorskip('ruff')
    for command in (['check'], ['format', '--check']):
        done = subprocess.run(
            [sys.executable, '-m', 'ruff', *command, '.'], cwd=project, capture_output=True
        )
        assert done.returncode == 0, done.stdout.decode()


def test_commands_of_the_readme(project):
    text = (project / 'README.md').read_text().replace('$TOOLS', 'tools')
    checker, found = Checker(project), []
    for block in re.findall(r'```bash\n(.*?)```', text, re.S):
        for words in commands(block):
            found += checker.check(words)
    assert len({script for script, _ in found}) == 7


def test_a_package_that_is_not_found(project, monkeypatch, capsys):
    (config,) = project.glob('configs/*/retinanet*.py')
    monkeypatch.setattr(sys, 'path', [path for path in sys.path if path != str(project)])
    monkeypatch.delitem(sys.modules, 'rope_net', raising=False)
    with pytest.raises(UserError) as error:
        load_config(str(config))
    assert "custom_imports: ModuleNotFoundError: No module named 'rope_net'. If" in str(error.value)
    assert 'add its folder to PYTHONPATH' in str(error.value)
    assert '\n' not in str(error.value)


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['new-project', 'nets/first', '--name', 'first_net2']) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == 'wrote 13 files to nets/first:'
    assert '  first_net2/backbone.py' in out
    assert out[-1].startswith('next: cd nets/first && python -m pytest')
    assert (
        'class FirstNet2(BaseBackbone)'
        in (tmp_path / 'nets/first/first_net2/backbone.py').read_text()
    )
    for argv, message in (
        (['nets/first'], 'nets/first exists and is not an empty folder'),
        (
            ['nets/a', '--name', 'My-Net'],
            "'My-Net' cannot be the name of a package: expected",
        ),
        (['nets/2nd'], "'2nd' cannot be the name"),
        (['nets/a', '--name', 'class'], "'class' cannot be the name"),
        (['nets/torch'], "'torch' is the name of a package that is installed here"),
        (['nets/mmyolo'], "'mmyolo' is the name of an OpenMMLab package"),
        (['nets/tests'], 'the project has a folder tests'),
        (['nets'], 'nets exists and is not an empty folder'),
        (['nets/first/README.md', '--name', 'b'], 'README.md exists and is not'),
        (['nets/first/README.md/x', '--name', 'b'], 'cannot be written: Not a directory'),
    ):
        assert main(['new-project', *argv]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / 'nets/a').exists()
    assert main(['tools']) == 0
    assert capsys.readouterr().out == f'{ROOT / "tools"}\n'


def test_odd_names(tmp_path, monkeypatch, capsys):
    """Folders with spaces, with .git alone, in the working directory; classes that are taken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m` does
    (tmp_path / 'own_net/.git').mkdir(parents=True)
    assert main(['new-project', 'own_net']) == 0
    capsys.readouterr()
    assert main(['new-project', 'my folder/net']) == 0
    assert "next: cd 'my folder/net' && " in capsys.readouterr().out
    for name, cls in (
        ('my_net', 'MyNet'),
        ('stage', 'StageNet'),
        ('none', 'NoneNet'),
        ('base_backbone', 'BaseBackboneNet'),
    ):
        new_project(tmp_path / name)
        text = (tmp_path / name / name / 'backbone.py').read_text()
        compile(text, name, 'exec')
        assert f'class {cls}(BaseBackbone)' in text
        assert f'class {cls}Arch(Arch)' in text


@pytest.mark.parametrize(
    ('name', 'hint'),
    [
        ('MyNet', 'my_net'),
        ('Übernetz', 'ubernetz'),
        ('2nd', 'nd'),
        ('class', 'class_net'),
        ('日', 'my_net'),
    ],
)
def test_names_that_are_suggested(name, hint):
    with pytest.raises(UserError, match=f'for example --name {hint}$'):
        new_project(f'nowhere/{name}')


def test_types_are_found_without_imports(project):
    """By the scope alone, in the registries of other libraries as well."""
    report = check_backbone('rope_net.RopeNet', only=['registered', 'layer_ids'])
    assert not report.skipped()


def test_operator(package):
    q, k, v = torch.randn(3, 2, 2, 6, 4)

    def formula(q, k, v):
        return package.linear_attention(q, k, v, impl='reference')

    check_operator(package.linear_attention, formula, [q, k, v], batched=(0, 1, 2))
    with dispatch.default_impl('reference'):
        assert dispatch.chosen_impl('auto', 'rope_net.linear_attention') == 'reference'
    with pytest.raises(ValueError, match='impl must be one of auto, reference, reassociated for'):
        package.linear_attention(q, k, v, impl='tiled')


def test_algorithms_of_other_packages(monkeypatch):
    monkeypatch.setattr(dispatch, 'ALGORITHMS', dict(dispatch.ALGORITHMS))
    monkeypatch.setattr(dispatch, '_NAMES', set(dispatch._NAMES))
    for _ in range(2):
        dispatch.register('a.b', 'quick', 'tiled')
    assert dispatch.choices('a.b') == ('auto', 'reference', 'quick', 'tiled')
    assert dispatch.choices('a.b', 'local_attention') == ('auto', 'reference', 'tiled')
    with dispatch.default_impl('quick'):
        assert dispatch.resolve('auto', 'a.b') == 'quick'
        assert dispatch.resolve('auto', 'separable_attention') == 'tiled'
    for name, algorithms, text in (
        (
            'local_attention',
            ('quick',),
            'has the algorithms .* already.*after its package',
        ),
        ('c.d', (), 'expected names of algorithms'),
        ('c.d', ('auto',), 'expected names of algorithms other than auto and reference'),
    ):
        with pytest.raises(ValueError, match=text):
            dispatch.register(name, *algorithms)


def test_configs_and_metafile(project, package):
    """The figures of the metafile are those of the configs, which build."""
    (tree,) = read_trees(project)
    assert tree.paper is None
    assert [(m.head, m.backbone) for m in tree.models] == [
        ('RetinaNet', 'rope-net-tiny'),
        ('Semantic FPN', 'rope-net-tiny'),
    ]
    for model in tree.models:
        cfg = Config.fromfile(project / model.config)
        cfg.model['_scope_'] = cfg.default_scope
        network = MODELS.build(cfg.model)
        assert type(network.backbone) is package.RopeNet
        total = count(network, model.size)[0]
        assert (total.params, total.macs) == (model.parameters, model.flops)


def test_listed_beside_ours(project, monkeypatch, capsys):
    monkeypatch.setenv('HYBRID_MM_ZOO', str(project))
    assert main(['list', 'rope-net', '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row['family'] for row in found['backbones']] == ['RopeNet']
    assert all(os.path.isfile(row['config']) for row in found['configs'])
    monkeypatch.setenv('HOME', str(project.parent))
    monkeypatch.setenv('HYBRID_MM_ZOO', os.pathsep.join([str(project), '~/rope-net']))  # the same
    assert main(['list', 'rope-net', '--json']) == 0
    assert json.loads(capsys.readouterr().out) == found
    monkeypatch.setenv('HYBRID_MM_ZOO', os.pathsep.join([str(project), str(project / 'tests')]))
    assert main(['list', 'rope-net']) == 2
    assert 'tests has no model-index.yml; name the folder' in capsys.readouterr().err


def test_trained_by_our_tools(project, tool, det_config, tmp_path, monkeypatch, capsys):
    """From another folder; with layer-wise decay, whose layers the network counts."""
    monkeypatch.chdir(tmp_path)
    with open(det_config, 'a') as file:
        file.write(
            "custom_imports = dict(imports=['rope_net'], allow_failed_imports=False)\n"
            'backbone.clear()\n'
            "backbone.update(type='rope_net.RopeNet', arch=dict(embed_dims=[8, 8, 16, 16],\n"
            '                depths=[1] * 4, heads=[1, 2, 2, 2], mlp_ratios=[2] * 4))\n'
            "optim_wrapper.update(constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',\n"
            '                     paramwise_cfg=dict(layer_decay_rate=0.5))\n'
        )
    assert tool('train', det_config, '--work-dir', 'run', '--no-validate')[0] == 0
    assert tool('test', det_config, 'run/iter_2.pth', '--work-dir', 'run')[0] == 0
    start = f'{det_config}', '--cfg-options', 'model.backbone.init_cfg.type=Pretrained'
    weights = 'model.backbone.init_cfg.checkpoint=run/iter_2.pth'
    assert tool('train', *start, weights, '--work-dir', 'again', '--no-validate')[0] == 0


def test_benchmark_of_a_project(project, tool, tmp_path, capsys):
    run = ('rope_net.benchmark', '--quick', '--seconds', 0, '--only', 'linear*')
    assert tool('benchmark', *run, '--out', tmp_path / 'out')[0] == 0
    assert 'reassociated' in (tmp_path / 'out/rope_net.benchmark.json').read_text()
    file = f'{project}/rope_net/benchmark.py'
    assert (benchmark_module(file).PACKAGES, short_name(file)) == ((), 'benchmark')
    for name, text in (
        ('rope_net.layers', 'rope_net.layers is no benchmark, it has no cases and no PACKAGES'),
        ('rope_net.nothing', "'rope_net.nothing' cannot be imported: install"),
        ('nothing.py', 'nothing.py does not exist'),
    ):
        status, err = tool('benchmark', name)
        assert status == 2
        assert text in err
    with pytest.raises(SystemExit):
        tool('benchmark', 'neighbourhood')
    assert 'did you mean neighborhood?' in capsys.readouterr().err


@pytest.mark.slow
def test_its_own_tests(project):
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-n0'],
        cwd=project,
        env=dict(os.environ, PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES=''),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r'2\d passed', done.stdout)
