"""tools/train.py and tools/test.py: a run of each task, their flags, and users' mistakes."""

import copy
import inspect
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from hybrid_mm.errors import UserError
from hybrid_mm.run import launch, tta

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Checkpoints of two iterations by the name of the config fixture, made once."""
    return {}, tmp_path_factory.mktemp('trained')


@pytest.fixture(params=['det', 'seg'])
def run(request, tool, trained):
    """Config, its checkpoint and its task."""
    config = request.getfixturevalue(f'{request.param}_config')
    done, folder = trained
    if request.param not in done:
        work_dir = folder / request.param
        assert tool('train', config, '--work-dir', work_dir, '--no-validate')[0] == 0
        done[request.param] = work_dir / 'iter_2.pth'
    return config, done[request.param], request.param


@pytest.fixture
def det_checkpoint(tool, det_config, trained):
    done, folder = trained
    if 'det' not in done:
        work_dir = folder / 'det'
        assert tool('train', det_config, '--work-dir', work_dir, '--no-validate')[0] == 0
        done['det'] = work_dir / 'iter_2.pth'
    return done['det']


def scalars(work_dir: Path) -> list[dict]:
    """Records of all runs in a work dir, in order; runs of the same second share a file."""
    paths = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


# ---------------------------------------------------------------- what the tools do


def test_train_validates_and_test_gives_the_same_metric(tool, run, tmp_path):
    config, _, task = run
    name = {'det': 'coco/bbox_mAP', 'seg': 'mIoU'}[task]
    options = ('--cfg-options', 'train_cfg.val_interval=2')
    assert tool('train', config, '--work-dir', tmp_path / 'a', '--amp', *options)[0] == 0
    trained = [record[name] for record in scalars(tmp_path / 'a') if name in record]
    out = tmp_path / 'metrics.json'
    arguments = (config, tmp_path / 'a' / 'iter_2.pth', '--work-dir', tmp_path / 'b')
    assert tool('test', *arguments, '--out', out, '--out-item', 'metrics')[0] == 0
    assert trained == [pytest.approx(json.loads(out.read_text())[name])]


def test_predictions_and_pictures(tool, run, tmp_path):
    config, checkpoint, task = run
    out = tmp_path / ('labels' if task == 'seg' else 'predictions.pkl')
    shown = tmp_path / 'shown' if task == 'seg' else 'shown'
    arguments = ('--work-dir', tmp_path / 'w', '--out', out, '--show-dir', shown)
    options = ('--interval', '1', '--amp', 'bfloat16')
    assert tool('test', config, checkpoint, *arguments, *options)[0] == 0
    if task == 'seg':
        maps = sorted(out.glob('*.png'))
        assert len(maps) == 4
        assert {cv2.imread(str(path), -1).shape for path in maps} == {(64, 64)}
        pictures = list(shown.rglob('*.png'))
    else:
        with open(out, 'rb') as file:
            assert len(pickle.load(file)) == 4
        pictures = list((tmp_path / 'w').glob('*/shown/*.png'))
    assert len(pictures) == 4


def test_options_of_windows_and_pictures(fails, det_config, det_checkpoint, monkeypatch):
    given = []
    signature = inspect.signature(launch.set_visualization)

    def record(*args, **kwargs):
        given.append(signature.bind(*args, **kwargs).arguments)
        raise UserError('seen')

    monkeypatch.setattr(launch, 'set_visualization', record)
    flags = ('--show', '--show-dir', 'shown', '--wait-time', '0.5', '--interval', '7')
    assert 'seen' in fails('test', det_config, det_checkpoint, *flags)
    (arguments,) = given
    del arguments['cfg']
    assert arguments == dict(show=True, show_dir='shown', wait_time=0.5, interval=7)


def test_test_time_augmentation(tool, run, tmp_path):
    config, checkpoint, _ = run
    out = tmp_path / 'metrics.json'
    flags = ('--work-dir', tmp_path / 'w', '--tta', '--out', out, '--out-item', 'metrics')
    assert tool('test', config, checkpoint, *flags)[0] == 0
    assert json.loads(out.read_text())


def test_weights_are_loaded_wherever_the_file_keeps_them(
    tool, det_config, det_checkpoint, tmp_path
):
    weights = torch.load(det_checkpoint, weights_only=False)['state_dict']
    files = dict(state_dict=dict(state_dict=weights), model=dict(model=weights), bare=weights)
    scores = {}
    for name, content in files.items():
        torch.save(content, tmp_path / f'{name}.pth')
        out = tmp_path / f'{name}.pkl'
        command = (tmp_path / f'{name}.pth', '--work-dir', tmp_path / 'w', '--out', out)
        assert tool('test', det_config, *command)[0] == 0
        found = pickle.loads(out.read_bytes())
        scores[name] = torch.cat([sample['pred_instances']['scores'] for sample in found])
    assert len(scores['state_dict']) > 0
    assert torch.equal(scores['model'], scores['state_dict'])
    assert torch.equal(scores['bare'], scores['state_dict'])


def test_resume_goes_on_where_it_stopped(tool, det_config, tmp_path):
    flags = ('--work-dir', tmp_path, '--no-validate', '--cfg-options')
    status, err = tool('train', det_config, '--resume', *flags, 'train_cfg.max_iters=2')
    assert status == 0
    assert 'no checkpoint; training starts from the beginning' in err
    assert tool('train', det_config, '--resume', *flags, 'train_cfg.max_iters=4')[0] == 0
    assert [record['step'] for record in scalars(tmp_path)] == [1, 2, 3, 4]
    first = tmp_path / 'iter_2.pth'
    command = ('--resume', first, *flags, 'train_cfg.max_iters=3')
    assert tool('train', det_config, *command)[0] == 0
    assert [record['step'] for record in scalars(tmp_path)] == [1, 2, 3, 4, 3]


def test_auto_scale_lr_and_seed(tool, det_config, tmp_path):
    flags = ('--work-dir', tmp_path, '--no-validate')
    scale = ('--auto-scale-lr', '--seed', '3', '--no-pin-memory')
    assert tool('train', det_config, *flags, *scale)[0] == 0
    assert scalars(tmp_path)[0]['lr'] == pytest.approx(0.01 * 2 / 16)
    (log,) = tmp_path.glob('*/*.log')
    assert 'seed: 3' in log.read_text()
    # the config may ask for it, and gradients that are accumulated count
    flags = ('--work-dir', tmp_path / 'b', '--no-validate', '--cfg-options')
    options = ('auto_scale_lr.enable=True', 'optim_wrapper.accumulative_counts=4')
    assert tool('train', det_config, *flags, *options)[0] == 0
    assert scalars(tmp_path / 'b')[0]['lr'] == pytest.approx(0.01 * 8 / 16)


def test_amp_before_the_config_does_not_swallow_it(tool, det_config, tmp_path):
    flags = ('--work-dir', tmp_path, '--no-validate')
    assert tool('train', '--amp', det_config, *flags)[0] == 0
    (stored,) = (path for path in tmp_path.glob('*.py') if path != det_config)
    text = stored.read_text()
    assert 'hybrid_mm.AutocastOptimWrapper' in text
    for name in ('ExactResumeHook', 'SeededDataset', 'PlacedSampler'):  # every run can be resumed
        assert f'hybrid_mm.{name}' in text


@pytest.mark.parametrize('name', ['train', 'test'])
def test_as_subprocess(name, det_config, tmp_path):
    arguments = [str(det_config), 'nothing.pth'] if name == 'test' else [str(det_config) + 'x']
    command = [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *arguments]
    env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')
    assert len(done.stderr.splitlines()) == 1


# ---------------------------------------------------------------- users' mistakes


def test_unknown_config(fails, det_config):
    assert 'tiny_det.py' in fails('train', det_config.with_name('tiny_dett.py'))
    message = fails('train', 'configs/van/mask-rcnn_van-b0_fpn_1x_koko.py')
    assert 'mask-rcnn_van-b0_fpn_1x_coco.py' in message


def test_config_with_a_syntax_error(fails, tmp_path):
    path = tmp_path / 'broken.py'
    path.write_text('model = dict(\n')
    assert 'broken.py: SyntaxError' in fails('train', path)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('modle.backbone.depth=50', "no key 'modle'; did you mean model"),
        ('model.bakbone.depth=50', "model has no key 'bakbone'; did you mean backbone"),
        ('model.bbox_head.num_classes.x=1', 'model.bbox_head.num_classes is 3 and has no keys'),
        ('pipeline.9.type=A', 'pipeline is a list of 4'),
        ('model.backbone.type=hybrid_mm.VAM', 'did you mean hybrid_mm.VAN'),
        ('model.backbone.type=ResNett', 'did you mean ResNet'),
        ('model.backbone.arch=b77', "'b77'"),
        ('model.backbone.atention=lska', "VAN has no argument 'atention'; did you mean attention"),
        ('train_dataloader.dataset.pipeline.1.type=Resise', 'did you mean Resize'),
        ('model.bbox_head.num_classes=4', 'num_classes is 4, but the data set'),
        ('model.backbone.init_cfg.type=Pretrained', 'pre-trained weights (no checkpoint) do not'),
        ('load_from=nothing.pth', 'checkpoint nothing.pth does not exist'),
    ],
)
def test_wrong_options(fails, det_config, tmp_path, option, message):
    text = fails('train', det_config, '--work-dir', tmp_path / 'w', '--cfg-options', option)
    assert message in text


def test_option_without_value(tool, det_config, capsys):
    with pytest.raises(SystemExit, match='2'):
        tool('train', det_config, '--cfg-options', 'model')
    assert "expects KEY=VALUE, got 'model'" in capsys.readouterr().err


def test_traceback_on_demand(tool, det_config, monkeypatch):
    with pytest.raises(UserError):
        tool('train', f'{det_config}x', '--debug')
    monkeypatch.setenv('HYBRID_MM_DEBUG', '1')
    with pytest.raises(UserError):
        tool('train', f'{det_config}x')


def test_missing_data_shows_the_layout(fails, det_config, seg_config, tmp_path):
    text = fails(
        'train', det_config, '--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/no'
    )
    assert 'annotations/train.json' in text
    assert text.count('MISSING') == 2
    assert 'train_dataloader.dataset.data_root=DIR' in text
    option = 'train_dataloader.dataset.data_prefix.seg_map_path=annotations/nowhere'
    text = fails('train', seg_config, '--cfg-options', option)
    assert 'annotations/nowhere' in text
    assert text.count('MISSING') == 1


def test_missing_data_names_the_variable_of_the_config(fails, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('COCO_ROOT', raising=False)
    text = fails('train', ROOT / 'configs/van/mask-rcnn_van-b0_fpn_1x_coco.py')
    assert 'the environment variable COCO_ROOT=DIR' in text


def test_pretrained_weights_of_another_network(fails, det_config, tmp_path):
    file = tmp_path / 'other.pth'
    torch.save({'conv1.weight': torch.zeros(4, 3, 7, 7)}, file)
    spec = f"dict(type='Pretrained', checkpoint='{file}')"
    van = "type='hybrid_mm.VAN'"
    det_config.write_text(det_config.read_text().replace(van, f'init_cfg={spec}, {van}'))
    assert 'conv1.weight' in fails('train', det_config, '--work-dir', tmp_path / 'w')
    file.write_bytes(file.read_bytes()[:300])
    text = fails('train', det_config, '--work-dir', tmp_path / 'w')
    assert 'other.pth (300 bytes) cannot be read' in text
    file.rename(tmp_path / 'else.pth')
    text = fails('train', det_config, '--work-dir', tmp_path / 'w')
    assert f'other.pth do not exist (model.backbone.init_cfg); {tmp_path} has else.pth' in text


def test_starting_weights_of_another_network(fails, tool, det_config, tmp_path):
    """MMEngine would train from random weights, and say so in a log only."""
    file = tmp_path / 'other.pth'
    flags = ('--work-dir', tmp_path / 'w', '--no-validate', '--cfg-options', f'load_from={file}')
    torch.save(dict(state_dict={'conv1.weight': torch.zeros(4, 3, 7, 7)}), file)
    text = fails('train', det_config, *flags)
    assert 'other.pth has nothing that fits this model' in text and 'conv1.weight' in text
    file.write_bytes(file.read_bytes()[:500])
    assert 'other.pth (500 bytes) cannot be read' in fails('train', det_config, *flags)
    torch.save(dict(a=1), file)
    assert 'no weights' in fails('train', det_config, *flags)
    # some weights, in the container of another library, are loaded
    init = dict(model={'bbox_head.conv_cls.bias': torch.full((3,), 7.0), 'x.y': torch.zeros(1)})
    torch.save(init, file)
    options = ('optim_wrapper.optimizer.lr=0.0', 'train_cfg.max_iters=2')
    assert tool('train', det_config, *flags, *options)[0] == 0
    saved = torch.load(tmp_path / 'w' / 'iter_2.pth', weights_only=False)['state_dict']
    assert torch.equal(saved['bbox_head.conv_cls.bias'], torch.full((3,), 7.0))


def test_categories_that_do_not_fit(fails, det_config):
    option = 'train_dataloader.dataset.metainfo.classes=(square,ring,bar)'
    text = fails('train', det_config, '--cfg-options', option)
    assert '1 of the 3 classes of the config' in text
    assert 'ring' in text and 'disc' in text


def test_labels_out_of_range(fails, seg_config, tiny_ade, tmp_path):
    folder = tmp_path / 'annotations'
    folder.mkdir()
    for path in (tiny_ade / 'annotations' / 'training').glob('*.png'):
        labels = cv2.imread(str(path), -1)
        cv2.imwrite(str(folder / path.name), np.where(labels == 3, 7, labels))
    option = f'train_dataloader.dataset.data_prefix.seg_map_path={folder}'
    text = fails('train', seg_config, '--cfg-options', option)
    assert 'has the label 6 (after reduce_zero_label and label_map); expected 0..2 and 255' in text


def test_no_base_batch_size(fails, det_config):
    text = fails('train', det_config, '--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None')
    assert 'base_batch_size' in text
    for option in ('auto_scale_lr.base_batch_size', 'optim_wrapper.accumulative_counts'):
        text = fails('train', det_config, '--cfg-options', f'{option}=0')
        assert f'{option} must be a positive number, got 0' in text
    asked = det_config.read_text().replace(
        'auto_scale_lr = dict(enable=False, base_batch_size=16)',
        'auto_scale_lr = dict(enable=True)',
    )
    det_config.write_text(asked)
    assert 'auto_scale_lr.enable needs auto_scale_lr.base_batch_size' in fails('train', det_config)


def test_float16_needs_a_gpu(fails, det_config):
    assert 'bfloat16' in fails('train', det_config, '--amp', 'float16')


def test_resume_from_nothing(fails, det_config, tmp_path):
    assert 'does not exist' in fails('train', det_config, '--resume', tmp_path / 'no.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_9.pth'))
    (tmp_path / 'iter_8.pth').touch()
    text = fails('train', det_config, '--resume', '--work-dir', tmp_path)
    assert 'has no good checkpoint' in text
    assert 'iter_9.pth' in text and 'last_checkpoint' in text
    assert 'iter_8.pth: ' in text


def test_checkpoints_that_do_not_fit(fails, det_config, det_checkpoint, seg_config, tmp_path):
    text = fails('test', seg_config, det_checkpoint, '--work-dir', tmp_path)
    assert 'is not one of this model (EncoderDecoder)' in text
    assert 'missing: ' in text and 'unexpected: ' in text and 'of another shape: ' in text
    option = 'model.bbox_head.stacked_convs=2'
    command = ('--work-dir', tmp_path, '--cfg-options', option)
    assert 'missing: bbox_head.cls_convs.1' in fails('test', det_config, det_checkpoint, *command)
    wide = ('model.bbox_head.feat_channels=32',)
    text = fails('test', det_config, det_checkpoint, '--work-dir', tmp_path, '--cfg-options', *wide)
    assert 'of another shape: bbox_head.' in text


def test_unreadable_checkpoints(fails, det_config, det_checkpoint, tmp_path):
    assert 'does not exist' in fails('test', det_config, tmp_path / 'no.pth')
    short = tmp_path / 'short.pth'
    short.write_bytes(det_checkpoint.read_bytes()[:20000])
    text = fails('test', det_config, short, '--work-dir', tmp_path)
    assert 'short.pth (20000 bytes) cannot be read' in text
    (tmp_path / 'text.pth').write_text('hello')
    assert 'text.pth cannot be read: it is text' in fails('test', det_config, tmp_path / 'text.pth')
    torch.save([1, 2], tmp_path / 'list.pth')
    assert 'expected a dict' in fails('test', det_config, tmp_path / 'list.pth')


def test_tta_of_instance_masks(fails, det_checkpoint):
    config = Config.fromfile(ROOT / 'configs/van/mask-rcnn_van-b0_fpn_1x_coco.py')
    for name in ('DetTTAModel', 'hybrid_mm.InstanceTTAModel'):
        cfg = copy.deepcopy(config)
        cfg.tta_model.type = name
        tta.set_test_time_augmentation(cfg)
        assert cfg.model.type == 'hybrid_mm.InstanceTTAModel'
        assert cfg.model.module == config.model
        assert cfg.test_dataloader.dataset.pipeline == config.tta_pipeline
    single = ROOT / 'configs/van/mask2former_van-b2_8xb2-lsj-50e_coco-panoptic.py'
    text = fails('test', single, det_checkpoint, '--tta')
    assert 'masks of Mask2Former cannot be merged, only those of two-stage' in text
