"""What several small tools write.

tools/complexity.py, tools/print_config.py, tools/convert_checkpoint.py, tools/publish_model.py,
tools/export_onnx.py, tools/analysis, and the scripts that start several processes.
"""

import hashlib
import json
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from hybrid_mm.commands import confusion_matrix
from hybrid_mm.export import graphs, onnx_files

from ..conftest import load_tool

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/lska/mask-rcnn_van-lska-tiny_fpn_1x_coco.py'


def test_complexity(tool, fails, tmp_path, capsys):
    out = tmp_path / 'c.json'
    assert tool('complexity', '--arch', 'b0', '--json', out)[0] == 0
    figures = json.loads(out.read_text())
    assert figures['params'] == 3848800
    assert figures['shape'] == [224, 224]
    spec = "dict(type='hybrid_mm.VAN', arch='tiny', attention='lska')"
    assert tool('complexity', '--backbone', spec, '--shape', '64', '64', '--json', out)[0] == 0
    assert json.loads(out.read_text())['params'] == 3772000
    assert "'b9'" in fails('complexity', '--arch', 'b9')
    assert 'literals' in fails('complexity', '--backbone', 'VAN()')
    assert tool('complexity', '--arch', 'b0', '--shape', '64', '--json', out)[0] == 0  # a square
    assert json.loads(out.read_text())['shape'] == [64, 64]
    assert '(H, W)' in fails('complexity', '--arch', 'b0', '--shape', '64', '64', '3', '1')


def test_complexity_with_an_unknown_algorithm(fails, monkeypatch):
    monkeypatch.setenv('HYBRID_MM_IMPL', 'fastest')
    backbone = "dict(type='hybrid_mm.NAT', arch='mini')"
    message = fails('complexity', '--backbone', backbone, '--shape', '64', '64')
    assert message.startswith('error: HYBRID_MM_IMPL must be auto or one of')


def test_complexity_of_a_config(tool, tmp_path):
    out = tmp_path / 'c.json'
    assert tool('complexity', CONFIG, '--depth', '1', '--json', out)[0] == 0
    figures = json.loads(out.read_text())
    assert figures['params'] == 23808336
    names = [module['name'] for module in figures['modules']]
    assert names == ['', 'backbone', 'neck', 'rpn_head', 'roi_head']
    parts = [module['macs'] for module in figures['modules']]
    assert parts[0] == sum(parts[1:])


def test_print_config(tool, fails, tmp_path, capsys):
    load = ('print_config', CONFIG, '--key', 'model.backbone', '--cfg-options')
    out = tmp_path / 'c.json'
    assert tool(*load, 'model.backbone.arch=b1', '--save', out)[0] == 0
    assert json.loads(out.read_text())['backbone']['arch'] == 'b1'
    assert 'did you mean backbone' in fails('print_config', CONFIG, '--key', 'model.bakbone')


def test_complexity_is_counted_at_the_size_of_the_task(tool, det_config, seg_config, tmp_path):
    out = tmp_path / 'c.json'
    for config, shape in ((det_config, [800, 1280]), (seg_config, [512, 512])):
        assert tool('complexity', config, '--depth', 1, '--json', out)[0] == 0
        figures = json.loads(out.read_text())
        assert figures['shape'] == shape
        names = {module['name'] for module in figures['modules']}
        assert {'', 'backbone', 'neck'} <= names and not any('.' in name for name in names)


def test_printed_parts(tool, tmp_path, capsys):
    path = tmp_path / 'c.py'
    path.write_text('model = dict(neck=dict(a=1, b=[dict(c=2), dict(c=3)]))\nother = 5\n')
    for key, expected in (('model.neck.b.1', {'1': dict(c=3)}), ('other', dict(other=5))):
        assert tool('print_config', path, '--key', key, '--save', tmp_path / 'x.json')[0] == 0
        assert json.loads((tmp_path / 'x.json').read_text()) == expected
    options = ('--key', 'model.neck', '--cfg-options', 'model.neck.a=7')
    assert load_tool('print_config').main([str(path), *options]) == 0
    assert ''.join(capsys.readouterr().out.split()) == 'neck=dict(a=7,b=[dict(c=2),dict(c=3),])'


@pytest.mark.parametrize(
    ('keys', 'expected'),
    [
        ('model.neck.a other', dict(a=1, other=5)),
        ('other model.neck.b.0', {'other': 5, '0': dict(c=2)}),
        ('model.neck.a model.head.a', dict(model_neck_a=1, model_head_a=4)),  # neither is lost
        ('model.neck.a model.neck.a', dict(a=1)),
        ('model.neck.a --key other', dict(a=1, other=5)),
    ],
)
def test_several_printed_parts(tool, tmp_path, keys, expected):
    path = tmp_path / 'c.py'
    path.write_text('model = dict(neck=dict(a=1, b=[dict(c=2)]), head=dict(a=4))\nother = 5\n')
    out = tmp_path / 'x.json'
    assert tool('print_config', path, '--save', out, '--key', *keys.split())[0] == 0
    assert json.loads(out.read_text()) == expected


@pytest.mark.parametrize(
    ('key', 'said'),
    [
        ('model.nek', "no 'nek' in model; did you mean neck?"),
        ('modl.neck', "no 'modl'; did you mean model?"),
        ('neck', "no 'neck'; did you mean model.neck?"),
        ('c', "no 'c'; did you mean model.neck.b.0.c, model.neck.b.1.c?"),
        ('model.neck.b.7', "no '7' in model.neck.b; there are 0, 1"),
        ('other.x', 'other is 5 and has no parts'),
        ('model.neck.zzz', "no 'zzz' in model.neck; there are a, b"),
    ],
)
def test_part_that_is_not_there(fails, tmp_path, key, said):
    path = tmp_path / 'c.py'
    path.write_text('model = dict(neck=dict(a=1, b=[dict(c=2), dict(c=3)]))\nother = 5\n')
    text = fails('print_config', path, '--key', 'other', key)
    assert f'--key {key}: {said}' in text


def test_convert_checkpoint(tool, fails, tmp_path):
    from safetensors.torch import load_file

    tensors = load_file(ROOT / 'tests/golden/data/van/backbone_dense_a.safetensors')
    state = {k[7:]: v for k, v in tensors.items() if k.startswith('weight/')}
    torch.save(dict(state_dict=state), tmp_path / 'official.pth.tar')
    out = tmp_path / 'ours.pth'
    assert tool('convert_checkpoint', tmp_path / 'official.pth.tar', out)[0] == 0
    ours = torch.load(out, weights_only=True)
    assert ours['meta']['source']
    total = sum(tensor.numel() for tensor in state.values())
    assert 0 < sum(tensor.numel() for tensor in ours['state_dict'].values()) <= total

    # the converted tensors are those of the file, and a source that is named is taken
    taken = sorted(t.sum().item() for t in ours['state_dict'].values())
    assert taken == sorted(t.sum().item() for k, t in state.items() if not k.startswith('head'))
    message = fails('convert_checkpoint', tmp_path / 'official.pth.tar', out, '--source', 'cvt')
    assert "cvt: do not know the key 'block1." in message

    state['blok.7.weight'] = torch.zeros(1)
    torch.save(state, tmp_path / 'odd.pth')
    source = ours['meta']['source']
    command = ('convert_checkpoint', tmp_path / 'odd.pth', out, '--source')
    assert 'blok.7.weight' in fails(*command, source)
    assert source in fails(*command, source[:-1] + '_')
    torch.save(dict(a=torch.zeros(1)), tmp_path / 'other.pth')
    assert 'no known layout has such names: a' in fails(
        'convert_checkpoint', tmp_path / 'other.pth', out
    )
    assert 'no weights' in fails(*_empty(tmp_path), out)

    del state['blok.7.weight']
    average = {f'module.{key}': value + 1 for key, value in state.items()}
    torch.save(dict(model=state, model_ema=average), tmp_path / 'two.pth')
    assert tool('convert_checkpoint', tmp_path / 'two.pth', out, '--key', 'model_ema')[0] == 0
    found = torch.load(out, weights_only=True)['state_dict']
    assert all(torch.equal(found[key], value + 1) for key, value in ours['state_dict'].items())
    assert "no 'ema' in it" in fails(
        'convert_checkpoint', tmp_path / 'two.pth', out, '--key', 'ema'
    )


def _empty(tmp_path) -> tuple:
    torch.save(dict(a=1), tmp_path / 'empty.pth')
    return 'convert_checkpoint', tmp_path / 'empty.pth'


def test_publish_model(tool, det_config, tmp_path):
    with open(det_config, 'a') as file:
        file.write("custom_hooks = [dict(type='EMAHook')]\n")
    assert tool('train', det_config, '--work-dir', tmp_path / 'w', '--no-validate')[0] == 0
    checkpoint = tmp_path / 'w' / 'iter_2.pth'
    assert tool('publish_model', checkpoint, tmp_path / 'out' / 'model.pth')[0] == 0
    (published,) = (tmp_path / 'out').iterdir()
    assert published.stem.startswith('model-') and len(published.stem) == len('model-') + 8
    ours = torch.load(published, weights_only=True)
    assert set(ours) == {'state_dict', 'meta'}
    full = torch.load(checkpoint, weights_only=False)
    assert 'ema_state_dict' in full and 'optimizer' in full
    assert full['state_dict'].keys() == ours['state_dict'].keys()
    for name, weight in full['state_dict'].items():
        torch.testing.assert_close(ours['state_dict'][name], weight)
    assert ours['meta']['dataset_meta']['classes'] == ['square', 'disc', 'bar']
    # and it is one that tools/test.py takes
    assert tool('test', det_config, published, '--work-dir', tmp_path / 't')[0] == 0


def test_published_file(tool, tmp_path):
    """Views become small tensors, metadata plain values; the name has the hash of the file."""
    whole = torch.arange(100_000.0)
    meta = dict(
        epoch=3,
        iter=7,
        cfg='text',
        seed=5,
        experiment_name='x',
        time='now',
        dataset_meta=dict(classes=('a', 'b'), palette=np.array([[1, 2, 3]])),
    )
    weights = dict(w=whole[:3], norm=whole.clone()[5:7].requires_grad_())
    content = dict(state_dict=weights, ema_state_dict=dict(w=whole), optimizer={}, meta=meta)
    torch.save(content, tmp_path / 'epoch_3.pth')
    assert tool('publish_model', tmp_path / 'epoch_3.pth', tmp_path / 'out/net.pth')[0] == 0
    (file,) = (tmp_path / 'out').iterdir()
    data = file.read_bytes()
    assert file.name == f'net-{hashlib.sha256(data).hexdigest()[:8]}.pth'
    assert len(data) < 10_000 < (tmp_path / 'epoch_3.pth').stat().st_size
    found = torch.load(file, weights_only=True)
    assert {k: v.tolist() for k, v in found['state_dict'].items()} == dict(w=[0, 1, 2], norm=[5, 6])
    assert not any(v.requires_grad for v in found['state_dict'].values())
    dataset = dict(classes=['a', 'b'], palette=[[1, 2, 3]])
    expected = dict(epoch=3, iter=7, cfg='text', experiment_name='x', dataset_meta=dataset)
    assert (found['meta'], set(found)) == (expected, {'state_dict', 'meta'})


def test_exported_files_are_compared_at_other_sizes_if_these_are_open(
    tool, det_config, tmp_path, monkeypatch
):
    compared = []
    graph = SimpleNamespace(part='_rois', inputs=['rois'], outputs=['mask_logits'])
    monkeypatch.setattr(graphs, 'graphs_of', lambda model, size, **settings: [graph])
    monkeypatch.setattr(onnx_files, 'export', lambda graph, path, dynamic, properties, say: None)
    monkeypatch.setattr(onnx_files, 'other_sizes', lambda model, size, part, **settings: [part])
    monkeypatch.setattr(
        onnx_files, 'check', lambda graph, path, others: compared.append((path.name, others)) or 0.5
    )
    for options, others in (((), ['_rois']), (('--fixed',), ())):
        command = ('export_onnx', det_config, tmp_path / 'net.onnx', '--raw', '--check', *options)
        assert tool(*command)[0] == 0
        assert compared.pop() == ('net_rois.onnx', others)


def test_curves(tool, fails, tmp_path, work_dir_of):
    work_dir = work_dir_of('det')
    picture = tmp_path / 'curves.png'
    runs = (work_dir, work_dir, '--labels', 'a', 'b', '--keys', 'loss', 'lr')
    assert tool('analysis/plot_curves', *runs, '--out', picture)[0] == 0
    assert picture.stat().st_size > 5000
    command = ('analysis/plot_curves', work_dir, '--keys', 'loss_clss')
    assert 'did you mean loss_cls' in fails(*command)
    assert 'none does not exist' in fails('analysis/plot_curves', tmp_path / 'none')


def test_browse_dataset(tool, seg_config, fails, tmp_path):
    flags = ('--output-dir', tmp_path / 'seen', '--not-show')
    assert tool('analysis/browse_dataset', seg_config, *flags)[0] == 0
    assert len(list((tmp_path / 'seen').glob('*.png'))) == 8
    root = 'train_dataloader.dataset.data_root=nowhere'
    text = fails('analysis/browse_dataset', seg_config, *flags, '--cfg-options', root)
    assert 'MISSING' in text


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_confusion_matrix(tool, request, fails, task, tmp_path, monkeypatch, work_dir_of):
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    config = request.getfixturevalue(f'{task}_config')
    predictions = tmp_path / ('p.pkl' if task == 'det' else 'maps')
    run = (config, work_dir_of(task) / 'iter_2.pth', '--work-dir', tmp_path / 't')
    assert tool('test', *run, '--out', predictions)[0] == 0
    assert tool('analysis/confusion_matrix', config, predictions, tmp_path / 'cm')[0] == 0
    assert (tmp_path / 'cm' / 'confusion_matrix.png').is_file()
    assert 'does not exist' in fails('analysis/confusion_matrix', config, tmp_path / 'no', 'x')


def test_pictures_of_many_classes_are_bounded():
    """150 classes at two inches and 300 dpi would need 26 GB."""
    with confusion_matrix.bounded_pictures():
        figure, _ = pyplot.subplots(figsize=(300, 240), dpi=300)
        small, _ = pyplot.subplots(figsize=(8, 6), dpi=300)
    after, _ = pyplot.subplots(figsize=(90, 60), dpi=300)
    assert tuple(figure.get_size_inches() * figure.get_dpi()) == (12_000, 9_600)
    assert (small.get_dpi(), after.get_dpi()) == (300, 300)
    pyplot.close('all')


@pytest.mark.parametrize('script', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_launch_scripts_say_how_they_are_called(script):
    command = ['bash', str(ROOT / 'tools' / f'{script}.sh')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f'usage: bash tools/{script}.sh')


SRUN = """#!/usr/bin/env bash
# What srun does with the tasks of one machine.
for word; do
    case $word in
        --ntasks=*) tasks=${word#*=} ;;
        --gres=none) cpus=1 ;;
        python) break ;;
    esac
    shift
done
[[ -n $cpus ]] || exit 3
for ((i = 1; i < tasks; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=$tasks SLURM_NODELIST=here "$@" &
done
SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=$tasks SLURM_NODELIST=here "$@" && wait
"""


def script(folder, name, text):
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.mark.parametrize('name', ['train', 'test'])
def test_commands_of_the_launch_scripts(name, tmp_path):
    """The commands they start, recorded by programs called torchrun and srun."""
    tell = f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\n'
    tell += f'printf "%s" "$HYBRID_MM_COMMAND" > {tmp_path}/typed\n'
    script(tmp_path, 'torchrun', tell)
    script(tmp_path, 'srun', tell)
    files = ['c.py'] if name == 'train' else ['c.py', 'w.pth']
    flags = ['--work-dir', 'a b']

    def run(launcher, arguments, **environment):
        env = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', **environment)
        command = ['bash', f'{ROOT}/tools/{launcher}_{name}.sh', *arguments]
        subprocess.run(command, env=env, check=True)
        typed = shlex.split((tmp_path / 'typed').read_text())  # for the line at an interruption
        settings = [f'{key}={value}' for key, value in environment.items()]
        assert typed == [*(['env', *settings] if settings else []), *command]
        return (tmp_path / 'words').read_text().splitlines()

    tool = f'{ROOT}/tools/{name}.py'
    ends = ['--launcher', 'pytorch', *flags]
    assert run('dist', [*files, '2', *flags]) == [
        '--nnodes=1',
        '--node_rank=0',
        '--nproc_per_node=2',
        '--master_addr=127.0.0.1',
        '--master_port=29500',
        tool,
        *files,
        *ends,
    ]
    many = dict(NNODES='3', NODE_RANK='1', MASTER_ADDR='host', PORT='7')
    assert run('dist', [*files, '8'], **many) == [
        '--nnodes=3',
        '--node_rank=1',
        '--nproc_per_node=8',
        '--master_addr=host',
        '--master_port=7',
        tool,
        *files,
        *ends[:2],
    ]
    begin = ['-p', 'main', '--job-name=job']
    end = ['python', '-u', tool, *files, '--launcher', 'slurm', *flags]
    kill = '--kill-on-bad-exit=1'
    assert run('slurm', ['main', 'job', *files, *flags]) == [
        *begin,
        '--gres=gpu:8',
        '--ntasks=8',
        '--ntasks-per-node=8',
        '--cpus-per-task=5',
        kill,
        *end,
    ]
    few = dict(GPUS='4', GPUS_PER_NODE='8', CPUS_PER_TASK='2', SRUN_ARGS='--qos a', GRES='none')
    assert run('slurm', ['main', 'job', *files, *flags], **few) == [
        *begin,
        '--gres=none',
        '--ntasks=4',
        '--ntasks-per-node=4',
        '--cpus-per-task=2',
        kill,
        '--qos',
        'a',
        *end,
    ]


def test_two_processes_give_the_metrics_of_one(tool, fork_tool, det_config, tmp_path):
    folder = '--work-dir', tmp_path
    assert tool('train', det_config, *folder, '--no-validate')[0] == 0
    arguments = tmp_path / 'iter_2.pth', *folder, '--out-item', 'metrics', '--out'
    two, one = tmp_path / 'two.json', tmp_path / 'one.json'
    fork_tool('test', 2, det_config, *arguments, two)
    assert tool('test', det_config, *arguments, one)[0] == 0
    check_metrics(two, one)


def check_metrics(two, one):
    ours, theirs = json.loads(two.read_text()), json.loads(one.read_text())
    keys = [key for key in theirs if key.startswith('coco/')]
    assert keys and {k: ours[k] for k in keys} == {k: theirs[k] for k in keys}


@pytest.mark.slow
@pytest.mark.parametrize('launcher', ['dist', 'slurm'])
def test_launch_scripts_on_cpu(launcher, tool, det_config, tmp_path):
    """Two processes train and give the metrics of one; Slurm is a script that starts them."""
    path = f'{tmp_path}:{Path(sys.executable).parent}:{os.environ["PATH"]}'
    env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', PATH=path, PORT='29617')
    env |= dict(GPUS='2', GRES='none', MASTER_PORT='29618')
    for name, text in (('srun', SRUN), ('scontrol', '#!/bin/sh\necho 127.0.0.1\n')):
        script(tmp_path, name, text)

    def run(name, arguments, *flags):
        first = ['main', 'job', *arguments] if launcher == 'slurm' else [*arguments, 2]
        command = ['bash', f'{ROOT}/tools/{launcher}_{name}', *map(str, first), *map(str, flags)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]

    arguments = '--work-dir', tmp_path / 'w', '--no-validate'
    run('train.sh', [det_config], *arguments)
    checkpoint = tmp_path / 'w' / 'iter_2.pth'
    metrics = ('--out-item', 'metrics', '--out')
    two, one = tmp_path / 'two.json', tmp_path / 'one.json'
    run('test.sh', [det_config, checkpoint], '--work-dir', tmp_path / 'w', *metrics, two)
    assert tool('test', det_config, checkpoint, '--work-dir', tmp_path, *metrics, one)[0] == 0
    check_metrics(two, one)


SCRIPTS = {
    'print_config': [str(CONFIG), '--key', 'model.neck'],
    'complexity': ['--arch', 'b0', '--shape', '32', '32', '--depth', '0'],
    'convert_checkpoint': ['--help'],
    'publish_model': ['--help'],
    'predict': ['--help'],
    'analysis/plot_curves': ['--help'],
    'analysis/browse_dataset': ['--help'],
    'analysis/confusion_matrix': ['--help'],
}


@pytest.mark.parametrize('name', SCRIPTS)
def test_as_script(name, monkeypatch, capsys):
    """Run as a script is, in this process."""
    path = str(ROOT / 'tools' / f'{name}.py')
    monkeypatch.setattr(sys, 'argv', [path, *SCRIPTS[name]])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(path, run_name='__main__')
    assert end.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        pytest.param(name, arguments, marks=[pytest.mark.slow] * (name != 'print_config'), id=name)
        for name, arguments in SCRIPTS.items()
    ],
)
def test_as_subprocess(name, arguments):
    env = dict(os.environ, OMP_NUM_THREADS='1')
    command = [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
