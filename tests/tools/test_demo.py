"""The demo from end to end, on a few pictures and for a few iterations."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from PIL import Image

from hybrid_mm.commands import demo
from hybrid_mm.data import shapes
from hybrid_mm.errors import UserError

from ..conftest import _forget_runs, load_tool

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = demo.SEGMENTER, demo.DETECTOR


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('demo')


@pytest.fixture(scope='module')
def run(folder):
    """Runs the demo on a few pictures with short schedules and promises that are kept."""
    splits = {'training': 8, 'validation': 6}
    patch = pytest.MonkeyPatch()
    patch.setattr(shapes, 'SPLITS', splits)

    configs = folder / 'configs'
    shutil.copytree(ROOT / 'configs' / '_base_', configs / '_base_')
    shutil.copytree(ROOT / 'configs' / 'demo', configs / 'demo')
    promises = {demo.SEGMENTER.name: "{'mIoU': 0.0}", demo.DETECTOR.name: "{'coco/bbox_mAP': 0.0}"}
    for path, promise in promises.items():
        with open(configs / 'demo' / path, 'a') as file:
            file.write(
                '\nmax_iters = 4\ntrain_cfg.update(max_iters=4, val_interval=4)\n'
                "default_hooks['checkpoint'].update(interval=4)\n"
                "default_hooks['logger'].update(interval=2)\n"
                'for loader in (train_dataloader, val_dataloader):\n'
                '    loader.update(num_workers=0, persistent_workers=False)\n'
                'test_dataloader = val_dataloader\n'
                'del loader\n'
                f'expected = {promise}\n'
            )
    patch.setattr(demo, 'SEGMENTER', configs / 'demo' / demo.SEGMENTER.name)
    patch.setattr(demo, 'DETECTOR', configs / 'demo' / demo.DETECTOR.name)
    arguments = [str(folder / 'out'), '--data', str(folder / 'data')]
    yield lambda *more: load_tool('demo').main([*arguments, *more])
    patch.undo()


def in_this_process(progress, model, command, log, verb):
    """What the demo has done by processes of their own, without the time that these take."""
    _forget_runs()
    log.parent.mkdir(parents=True, exist_ok=True)
    name = Path(command[0]).stem
    with log.open('w') as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        status = load_tool(name).main([str(word) for word in command[1:]])
    if status:
        raise UserError(f'{verb} the {model.name} failed: {log.read_text()}')


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.setattr(demo, '_run', in_this_process)
    monkeypatch.setattr(demo, '_two_processes', lambda: False)
    yield
    _forget_runs()


def check_from_nothing_to_pictures(run, folder, capsys):
    assert run() == 0
    printed = capsys.readouterr().out
    for figure in ('mIoU', 'box mAP'):
        assert figure in printed
    assert 'MISSED' not in printed and 'left' in printed
    out = folder / 'out'
    assert json.loads((out / 'metrics.json').read_text())['detector'].keys() >= {'coco/segm_mAP'}
    for name in ('detections', 'segmentations', 'curves'):
        picture = Image.open(out / f'{name}.png')
        assert min(picture.size) > 500 and len(picture.convert('RGB').getcolors(1 << 24)) > 50
    # the detector starts from the segmenter's backbone
    assert 'segmenter/iter_4.pth' in (out / 'detector' / 'train.log').read_text()


def test_from_nothing_to_pictures(run, folder, capsys, here):
    check_from_nothing_to_pictures(run, folder, capsys)


@pytest.mark.slow
def test_through_processes(run, folder, capsys):
    """Two of them for each training; what the other tests leave is in another folder."""
    shutil.rmtree(folder / 'out', ignore_errors=True)
    check_from_nothing_to_pictures(run, folder, capsys)


@pytest.mark.slow
def test_reuse_says_so_and_missed_promise_is_status_1(run, capsys, here):
    with open(demo.DETECTOR, 'a') as file:
        file.write("expected = {'coco/segm_mAP': 1.0}\n")
    assert run('--reuse') == 1
    printed = capsys.readouterr().out
    assert printed.count('reusing') == 2 and 'MISSED' in printed


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a script in the place of tools/train.py."""

    def write(text):
        (tmp_path / 'tools').mkdir(exist_ok=True)
        (tmp_path / 'tools/train.py').write_text(f'import sys\n{text}')
        monkeypatch.setattr(demo, 'ROOT', tmp_path)
        monkeypatch.setattr(demo, '_two_processes', lambda: False)

    return write


def test_failed_step_is_one_error_with_the_log(run, folder, capsys, stand_in):
    shutil.rmtree(folder / 'out' / 'detector')
    stand_in("print('one'); print('the reason', file=sys.stderr); sys.exit(3)")
    assert run('--reuse') == 2
    error = capsys.readouterr().err
    assert 'error: training the detector failed (see above); the whole log: ' in error
    assert error.splitlines()[:2] == ['one', 'the reason']
    log = folder / 'out/detector/train.log'
    assert str(log) in error
    assert log.read_text() == 'one\nthe reason\n'


def model(folder, name='segmenter', iterations=4, batch=6):
    loops = dict(train_cfg=dict(max_iters=iterations), train_dataloader=dict(batch_size=batch))
    cfg = Config(loops)
    path = folder / 'c.py'
    cfg.dump(path)
    return demo.Model(name, path, folder / name, ('a=1', 'b=2'))


def test_iterations_of_a_process_move_the_progress(stand_in, tmp_path, capsys):
    lines = [
        'Iter(train) [  2/10]  lr: 1e-3  loss: 0.5012  loss_cls: 0.3',
        'something else',
        'Iter(train) [ 8/10]  lr: 1e-3  loss: 0.25',
        'Iter(test) [10/10]',
    ]
    stand_in(f'print({chr(10).join(lines)!r})')
    progress = demo.Progress(['train_segmenter'])
    demo.train(progress, model(tmp_path), False, [])
    said = [line.split(' left  ') for line in capsys.readouterr().out.splitlines()]
    assert [text for *_, text in said[:3]] == [
        'training the segmenter: 2 of 10, loss 0.50',
        'training the segmenter: 8 of 10, loss 0.25',
        'training the segmenter: 10 of 10, loss 0.25',
    ]
    assert [line[0].split(' %')[0].strip() for line in said[:3]] == ['20', '80', '100']
    assert said[3][0].startswith('segmenter: trained in 0:0')
    assert (tmp_path / 'segmenter/train.log').read_text().splitlines() == lines


def test_commands_of_the_trainings(tmp_path, monkeypatch, capsys):
    found = []
    monkeypatch.setattr(demo, '_run', lambda progress, model, command, *rest: found.append(command))
    ours, progress = model(tmp_path), demo.Progress(['train_segmenter'])
    plain = ['tools/train.py', ours.config, '--work-dir', ours.folder]
    options = ['--cfg-options', 'a=1', 'b=2']
    monkeypatch.setattr(demo, '_two_processes', lambda: False)
    demo.train(progress, ours, False, ['c=3'])
    assert found.pop() == [*plain, *options, 'c=3']
    monkeypatch.setattr(demo, '_two_processes', lambda: True)
    demo.train(progress, ours, True, ['c=3'])  # nothing is there to go on from
    two = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', *plain]
    half = 'train_dataloader.batch_size=3'
    assert found.pop() == [*two, '--launcher', 'pytorch', *options, half, 'c=3']

    ours.folder.mkdir()
    (ours.folder / 'last_checkpoint').write_text('iter_2.pth')
    demo.train(progress, ours, True, [])
    assert found.pop() == [*two, '--launcher', 'pytorch', '--resume', *options, half]
    assert 'resuming from the last checkpoint' in capsys.readouterr().out
    (ours.folder / 'iter_4.pth').touch()
    demo.train(progress, ours, True, [])
    assert not found
    with pytest.raises(UserError, match='segmenter is not of an earlier demo'):
        demo.train(progress, ours, False, [])
    assert (ours.folder / 'iter_4.pth').exists() and not found
    (ours.folder / 'train.log').touch()
    demo.train(progress, ours, False, [])
    assert not ours.folder.exists()  # begun anew


def test_report_by_hand():
    """All in per cent; what is reached exactly is kept."""
    segmenter, detector = (
        SimpleNamespace(name=name, settings=SimpleNamespace(expected=expected))
        for name, expected in (
            ('segmenter', {'mIoU': 80.0}),
            ('detector', {'coco/bbox_mAP': 0.6, 'coco/segm_mAP': 0.55}),
        )
    )
    reached = dict(segmenter={'mIoU': 80.0}, detector={'coco/bbox_mAP': 0.612})
    for mask, kept, said in ((0.551, True, 'ok'), (0.5494, False, 'MISSED')):
        reached['detector']['coco/segm_mAP'] = mask
        lines, found = demo.report([segmenter, detector], reached)
        assert found == kept
        assert [line.split() for line in lines[1:]] == [
            ['segmenter', 'mIoU', '80.0', '80.0', 'ok'],
            ['detector', 'box', 'mAP', '61.2', '60.0', 'ok'],
            ['detector', 'mask', 'mAP', f'{100 * mask:.1f}', '55.0', said],
        ]


def test_configs_promise_all_three_figures():
    promises = {}
    for path in CONFIGS:
        promises.update(Config.fromfile(path).expected)
    assert promises.keys() == {'mIoU', 'coco/bbox_mAP', 'coco/segm_mAP'}
    assert promises.keys() == demo.NAMES.keys()


def test_foreign_data_folder(tmp_path, capsys):
    (tmp_path / 'a.txt').write_text('')
    assert load_tool('demo').main([str(tmp_path / 'out'), '--data', str(tmp_path)]) == 2
    assert 'choose another folder' in capsys.readouterr().err


def test_script_starts_the_demo_with_the_python_of_the_set_up(tmp_path):
    (tmp_path / 'tools').mkdir()
    shutil.copy(ROOT / 'tools/demo.sh', tmp_path / 'tools')
    (tmp_path / 'tools/setup.sh').write_text(f'echo a word >&2\necho {sys.executable}\n')
    (tmp_path / 'tools/demo.py').write_text('import sys\nprint(sys.argv[1:])\nsys.exit(5)\n')
    command = ['bash', str(tmp_path / 'tools/demo.sh'), 'a b', '--reuse']
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (5, "['a b', '--reuse']\n")


@pytest.mark.slow
def test_help_through_the_script(monkeypatch):
    monkeypatch.setenv('VIRTUAL_ENV', sys.prefix)
    command = ['bash', str(ROOT / 'tools' / 'demo.sh'), '--help']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '--reuse' in done.stdout
