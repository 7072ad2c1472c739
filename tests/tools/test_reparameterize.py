"""tools/reparameterize.py."""

from pathlib import Path

import torch

from hybrid_mm.backbones import SLaK
from hybrid_mm.run.config import load_config

ROOT = Path(__file__).resolve().parents[2]


def config(tmp_path, name):
    """A small version of a config, and a checkpoint of it with statistics as after training."""
    from mmengine.registry import MODELS, init_default_scope

    cfg = load_config(str(next(ROOT.glob(f'configs/*/{name}.py'))))
    cfg.model.backbone.update(
        arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 16, 16]), width_factor=1.0, init_cfg=None
    )
    cfg.model.decode_head.update(in_channels=[8, 8, 16, 16], channels=8)
    cfg.model.auxiliary_head.update(in_channels=16, channels=8)
    path = tmp_path / f'{name}.py'
    cfg.dump(path)
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model)
    for key, value in model.state_dict().items():
        if key.endswith('running_var'):
            value.uniform_(0.5, 2)
        elif key.endswith('running_mean'):
            value.normal_(std=0.1)
    weights = tmp_path / f'{name}.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=3)), weights)
    return path, weights


def test_merged_checkpoint_is_that_of_the_deployed_model(tool, tmp_path, capsys):
    from mmengine.registry import MODELS, init_default_scope

    for name in (
        'pelk-tiny_upernet_4xb4-160k_ade20k-512x512',
        'slak-tiny_upernet_4xb4-160k_ade20k-512x512',
    ):
        path, weights = config(tmp_path, name)
        out = tmp_path / 'out' / f'{name}.pth'
        assert tool('reparameterize', path, weights, out, '--shape', '64', '96') == (0, '')
        saved = torch.load(out, weights_only=True)
        assert saved['meta'] == dict(epoch=3, reparameterized=True)
        cfg = load_config(str(path), {'model.backbone.deploy': True})
        init_default_scope('mmseg')
        model = MODELS.build(cfg.model)
        model.load_state_dict(saved['state_dict'])
        assert not any('small' in key for key in saved['state_dict'])


def test_a_wrong_merge_is_not_written(fails, tmp_path, monkeypatch):
    """One value of one map that is off by a hundredth of the largest."""
    merge = SLaK.switch_to_deploy

    def wrong(self):
        merge(self)
        forward = self.forward

        def changed(x):
            maps = [m.clone() for m in forward(x)]
            maps[1][0, 0, 0, 0] += 0.01 * maps[1].abs().max()
            return tuple(maps)

        self.forward = changed

    monkeypatch.setattr(SLaK, 'switch_to_deploy', wrong)
    path, weights = config(tmp_path, 'slak-tiny_upernet_4xb4-160k_ade20k-512x512')
    text = fails('reparameterize', path, weights, tmp_path / 'out.pth', '--shape', '64', '96')
    assert 'differs by 1.0e-02 of its largest value (allowed 1e-04); nothing was written' in text
    assert not (tmp_path / 'out.pth').exists()


def test_mistakes(fails, tmp_path):
    path, weights = config(tmp_path, 'slak-tiny_upernet_4xb4-160k_ade20k-512x512')
    out = tmp_path / 'out.pth'
    deploy = ('--cfg-options', 'model.backbone.deploy=True')
    assert 'the merged form already' in fails('reparameterize', path, weights, out, *deploy)
    other = ROOT / 'configs/van/mask-rcnn_van-b0_fpn_1x_coco.py'
    assert 'VAN has nothing to merge' in fails('reparameterize', other, weights, out)
    state = torch.load(weights, weights_only=True)
    state['state_dict']['backbone.stages.0.blocks.0.gamma'][0] = float('nan')
    torch.save(state, weights)
    assert 'nothing was written' in fails('reparameterize', path, weights, out)
    assert not out.exists()
