"""The config of a run that is resumed, beside the one that its checkpoint stores."""

import copy

import pytest
import torch
from mmengine.config import Config

from hybrid_mm.engine.stored_config import changes, stored_config
from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.resumed import check_resumed
from hybrid_mm.run.launch import set_exact_resume, set_sample_checks


def meta_of(cfg, **position):
    return dict(cfg=cfg.pretty_text) | (position or dict(epoch=0, iter=1))


@pytest.fixture
def cfg(det_config):
    return Config.fromfile(det_config)


def test_text_of_a_config():
    """It is read, never run."""
    text = (
        "a = dict(b=[dict(c=1), (2, 'x')], d={'e-f': None}, g=-1.5)\nh = open('nothing', 'w')\n"
        'i = float(1)\nimport os\nj: int = 3\n'
    )
    assert stored_config(dict(cfg=text)) == dict(
        a=dict(b=[dict(c=1), [2, 'x']], d={'e-f': None}, g=-1.5),
        h="open('nothing', 'w')",
        i='float(1)',
    )
    for meta in (dict(), dict(cfg=None), dict(cfg='a = ('), dict(cfg='\0')):
        assert stored_config(meta) is None


def test_silent_without_changes(cfg, capsys):
    """Wrappers, places, workers, logs and validation make no difference."""
    before = meta_of(cfg)
    check_resumed(cfg, 'x.pth', before)
    for other in (set_exact_resume, set_sample_checks):
        other(cfg)
    check_resumed(cfg, 'x.pth', before)
    check_resumed(cfg, 'x.pth', meta_of(cfg))
    cfg.work_dir, cfg.log_level, cfg.train_cfg.val_interval = 'a/b', 'ERROR', 7
    data = cfg.train_dataloader.dataset.dataset.dataset
    data.update(data_root='elsewhere', ann_file='c.json', data_prefix=dict(img='d'))
    cfg.train_dataloader.num_workers = 5
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='e.pth')
    cfg.default_hooks.logger.interval = 9
    cfg.custom_hooks.append(dict(type='hybrid_mm.NonFiniteLossHook'))
    check_resumed(cfg, 'x.pth', before)
    assert capsys.readouterr().err == ''
    check_resumed(cfg, 'x.pth', dict(epoch=0, iter=1))  # a file without a config
    assert capsys.readouterr().err == ''


def test_changes_are_named(cfg, capsys):
    before = meta_of(cfg)
    cfg.train_cfg.max_iters = 4
    cfg.optim_wrapper.optimizer.lr = 0.02
    cfg.optim_wrapper.accumulative_counts = 2
    cfg.model.bbox_head.feat_channels = 32
    check_resumed(cfg, 'x.pth', before)
    assert capsys.readouterr().err == (
        'warning: --resume: the config is not that of x.pth; the new values are used: '
        'model.bbox_head.feat_channels 16 -> 32, train_cfg.max_iters 2 -> 4, '
        'optim_wrapper.optimizer.lr 0.01 -> 0.02, optim_wrapper.accumulative_counts nothing -> 2\n'
    )
    pipeline = cfg.train_dataloader.dataset.pipeline
    del pipeline[1]
    cfg.model.backbone.update({f'new{i}': i for i in range(9)})
    check_resumed(cfg, 'x.pth', before)
    err = capsys.readouterr().err
    assert err.count(' -> ') == 8 and err.endswith(', and 6 more\n')
    found = {name: (old, new) for name, old, new in changes(stored_config(before), cfg.to_dict())}
    name = 'train_dataloader.dataset.pipeline'
    assert [len(steps) for steps in found[name]] == [4, 3]
    assert not any(key.startswith(f'{name}.') for key in found)


EPOCHS = dict(by_epoch=True, max_epochs=3)


@pytest.mark.parametrize(('loop', 'position', 'message'), [
    (dict(type='IterBasedTrainLoop', max_iters=4), dict(epoch=0, iter=5),
     r'has 5 iterations, but this run ends after 4 \(train_cfg.max_iters\)'),
    (EPOCHS, dict(epoch=4, iter=16), r'has 4 epochs, but this run ends after 3'),
    (EPOCHS, dict(iter=3), 'does not say at which epoch the training was'),
    (EPOCHS, dict(epoch=3, iter='3'), 'does not say at which iter the training was'),
    (EPOCHS, dict(epoch=1, iter=3, other=dict(type='IterBasedTrainLoop', max_iters=4)),
     r'is of a run by iterations, this run \(train_cfg\) goes by epochs; .* load_from=x.pth'),
    (EPOCHS, dict(epoch=1, iter=3, optimizer='torch.optim.Adam'),
     'has the state of the optimizer Adam, this run has SGD; it cannot be resumed so'),
])  # fmt: skip
def test_refused(cfg, loop, position, message):
    cfg.train_cfg, old = loop, copy.deepcopy(cfg)
    old.train_cfg = position.pop('other', loop)
    old.optim_wrapper.optimizer.type = position.pop('optimizer', 'SGD')
    with pytest.raises(UserError, match=f'^checkpoint x.pth {message}'):
        check_resumed(cfg, 'x.pth', meta_of(old, **position))


def test_nothing_is_left(cfg, capsys):
    for loop, unit in ((EPOCHS, 'epochs'), (dict(max_iters=12), 'iterations')):
        cfg.train_cfg = loop
        check_resumed(cfg, 'x.pth', meta_of(cfg, epoch=3, iter=12))
        err = capsys.readouterr().err
        assert err.startswith('warning: --resume: nothing is left to train: x.pth has all ')
        assert unit in err
    cfg.train_cfg = dict(type='MyLoop')  # of a kind that is not known
    check_resumed(cfg, 'x.pth', meta_of(cfg, epoch=3, iter=12))
    assert capsys.readouterr().err == ''


def test_in_the_tool(tool, fails, det_config, tmp_path):
    """A detector: finished, longer, with other settings, and what cannot go on."""
    flags = ('--work-dir', tmp_path, '--no-validate', '--cfg-options')
    det_config.write_text(
        det_config.read_text() + "\nparam_scheduler = [dict(type='PolyLR', by_epoch=False)]\n"
    )
    assert tool('train', det_config, *flags[:-1])[0] == 0
    status, err = tool('train', det_config, '--resume', *flags[:-1])
    assert status == 0 and 'nothing is left to train' in err
    longer = (*flags, 'train_cfg.max_iters=4', 'optim_wrapper.optimizer.lr=0.02')
    status, err = tool('train', det_config, '--resume', *longer)
    assert status == 0
    assert 'train_cfg.max_iters 2 -> 4, optim_wrapper.optimizer.lr 0.01 -> 0.02' in err
    saved = torch.load(tmp_path / 'iter_4.pth', weights_only=False)
    (state,) = saved['param_schedulers']
    assert (state['end'], state['base_values'], state['last_step']) == (4, [0.02], 3)
    for option, message in (
        ('model.bbox_head.stacked_convs=2', 'is not one of this model (FCOS):\n  6 missing: bbox'),
        ('optim_wrapper.optimizer.type=AdamW', 'has the state of the optimizer SGD, this run has'),
        ('train_cfg.max_iters=3', 'has 4 iterations, but this run ends after 3'),
    ):
        assert message in fails('train', det_config, '--resume', *longer[:-1], option)
