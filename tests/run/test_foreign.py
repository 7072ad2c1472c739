"""Configs of MMDetection, MMSegmentation and MMPretrain, and configs with such bases."""

from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.classes import check_num_classes
from hybrid_mm.run.checks.settings import check_settings
from hybrid_mm.run.config import load_config, nodes, task_of
from hybrid_mm.run.foreign import config_file, normalize, package_configs
from hybrid_mm.run.tta import set_test_time_augmentation

SWIN = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'
OURS = """
model = dict(backbone=dict(_delete_=True, type='hybrid_mm.NAT', arch='mini'),
             neck=dict(in_channels=[64, 128, 256, 512]))
"""


@pytest.fixture
def write(tmp_path):
    def function(text, name='config.py'):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return function


def scopes(cfg):
    return {path for path, node in nodes(dict(cfg), '') if '_scope_' in node}


def test_bases_by_package_list_and_path(write):
    single = load_config(write(f'_base_ = {SWIN!r}{OURS}'))
    by_path = load_config(write(f'_base_ = {config_file(SWIN)!r}{OURS}'))
    write('train_cfg = dict(max_epochs=12)\n', 'local.py')
    parts = [f'mmdet::_base_/{name}.py' for name in (
        'models/mask-rcnn_r50_fpn', 'datasets/coco_instance', 'schedules/schedule_1x',
        'default_runtime')]  # fmt: skip
    parts[2:3] = ['./schedule.py']
    write("_base_ = 'mmdet::_base_/schedules/schedule_1x.py'\n", 'schedule.py')
    several = load_config(write(f'_base_ = {parts}{OURS}'))
    for cfg in (single, by_path, several):
        assert scopes(cfg) == set()
        check_settings(cfg)
        assert task_of(cfg) == 'detection' and cfg.model.backbone.type == 'hybrid_mm.NAT'
    assert single._cfg_dict == by_path._cfg_dict


@pytest.mark.parametrize('base', [
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', SWIN,
])  # fmt: skip
def test_configs_by_the_name_of_their_package(base, write):
    cfg, child = load_config(base), load_config(write(f'_base_ = {base!r}'))
    assert Path(cfg.filename).is_file()
    assert child._cfg_dict == cfg._cfg_dict
    check_settings(child)
    assert load_config(base.removesuffix('.py'))._cfg_dict == cfg._cfg_dict


def test_scopes_that_differ_stay(write):
    path = write("_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'\ndefault_scope = 'mmseg'\n")
    cfg = load_config(path)
    assert scopes(cfg) == {'.model'} and cfg.model._scope_ == 'mmdet'
    assert task_of(cfg) == 'detection'
    # what is built in that scope belongs to it, what has no type is not built
    inner = dict(type='Y', _scope_='a', z=dict(type='Z', _scope_='a'))
    x = [dict(type='X', _scope_='b', y=inner)]
    cfg = Config(dict(default_scope='a', x=x, n=dict(_scope_='b', m=1)))
    normalize(cfg)
    assert scopes(cfg) == {'.x.0', '.x.0.y'}
    assert cfg.n == dict(m=1)
    foreign = load_config(path)
    foreign.log_processor = dict(type='LogProcessor', _scope_='mmdet')
    foreign.default_hooks = dict(visualization=dict(type='DetVisualizationHook', _scope_='mmdet'))
    foreign.train_dataloader, foreign.train_cfg = ConfigDict(), ConfigDict(max_epochs=1)
    foreign.optim_wrapper = ConfigDict(optimizer=dict(type='SGD', lr=0.1))
    check_settings(foreign)


def test_configs_without_a_scope_have_that_of_their_package():
    cfg = load_config('mmpretrain::dinov2/vit-small-p14_dinov2-pre_headless.py')
    assert task_of(cfg) == 'classification'


def test_names_that_do_not_exist(write):
    near = 'did you mean mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'
    wrong = SWIN.replace('swin/', 'mask_rcnn/')
    with pytest.raises(UserError, match=f'mmdet has no such config; {near}'):
        load_config(wrong)
    with pytest.raises(UserError, match=near):
        load_config(write(f'_base_ = {wrong!r}'))
    with pytest.raises(UserError, match='one of mmdet::, mmseg::, mmpretrain::'):
        load_config('mmother::a/b.py')
    assert package_configs('mmother') is None and config_file('a/b.py') == 'a/b.py'


def test_classes_become_names(write):
    """As pure Python configs have them, and import paths, as MMEngine writes those."""
    cfg = load_config(write("""
from mmcv.ops import nms
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations as Objects
from mmengine.model import PretrainedInit
from mmengine.optim import OptimWrapper
from torch import nn
from torch.optim import SGD
from mmdet.models import RetinaNet
from mmseg.models import EncoderDecoder
from hybrid_mm.backbones import NAT

default_scope = 'mmdet'
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.1))
model = dict(type=RetinaNet, backbone=dict(type=NAT, init_cfg=dict(type=PretrainedInit)),
             other=dict(type=EncoderDecoder), test_cfg=dict(nms=dict(type=nms)),
             unknown=dict(type=nn.Module))
pipeline = [dict(type=LoadImageFromFile), dict(type=Objects), dict(type=LoadAnnotations)]
"""))  # fmt: skip
    written = Config.fromstring(cfg.pretty_text, '.py')
    assert cfg.model.unknown.type.__name__ == 'Module'  # no registry has it
    written.model.type = 'mmdet.models.detectors.RetinaNet'
    normalize(written)
    for each in (cfg, written):
        assert each.model.type == 'RetinaNet'
        assert each.model.backbone.type == 'hybrid_mm.NAT'
        assert each.model.backbone.init_cfg.type == 'Pretrained'
        assert each.model.other.type == 'mmseg.EncoderDecoder'
        assert each.model.test_cfg.nms.type == 'nms'
        assert each.optim_wrapper.type == 'OptimWrapper'
        assert each.optim_wrapper.optimizer.type == 'SGD'
        # the default scope has another class of this name
        assert [t.type for t in each.pipeline] == [
            *('LoadImageFromFile', 'LoadAnnotations', 'mmengine.LoadAnnotations')
        ]


def test_models_that_get_their_classes_as_text():
    """Their heads have another ``num_classes`` than data sets, which may differ from each other."""
    model = dict(bbox_head=dict(num_classes=256))
    with pytest.raises(UserError, match='num_classes is 256'):
        check_num_classes(model, ['cat'], 'the data set')
    for key in ('language_model', 'text_encoder'):
        check_num_classes(
            dict(module=dict(model, **{key: dict(type='X')})), ['cat'], 'the data set'
        )


def test_augmentation_of_data_sets_that_are_joined():
    steps = [dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations'),
             dict(type='mmdet.PackDetInputs', meta_keys=())]  # fmt: skip
    parts = [dict(type='CocoDataset', pipeline=steps) for _ in range(2)]
    loader = dict(dataset=dict(type='ConcatDataset', datasets=parts))
    model = dict(type='RetinaNet')
    cfg = Config(dict(default_scope='mmdet', model=model, tta_model=None, test_dataloader=loader))
    set_test_time_augmentation(cfg)
    for part in cfg.test_dataloader.dataset.datasets:
        assert [step.type for step in part.pipeline] == ['LoadImageFromFile', 'TestTimeAug']
        flips, annotations, _ = part.pipeline[-1].transforms
        assert len(flips) == 2 and annotations[0].type == 'mmdet.LoadAnnotations'
