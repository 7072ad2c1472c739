"""Which configs there are, and how a test builds one at a reduced size."""

import contextlib
import copy
import functools
import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from torch.overrides import TorchFunctionMode

from hybrid_mm.run.launch import set_training_amp

from .loading import CONFIGS, fromfile, look_at

CONFIG_FILES = sorted(p for p in CONFIGS.glob('*/*.py') if p.parent.name != '_base_')
PAPERS = sorted(p.parent for p in CONFIGS.glob('*/metafile.yml'))
SIZE = 64


load = functools.cache(look_at)  # a config to look at, not to change


def as_parameter(path: Path, *marks):
    """A config as a parameter of a test, which ``--parts tree:NAME`` selects."""
    mark = pytest.mark.part_of(f'tree:{path.parent.name}')
    return pytest.param(path, marks=[mark, *marks], id=relative(path))


def relative(path: Path) -> str:
    """Name of a config in the output of pytest."""
    return str(path.relative_to(CONFIGS).with_suffix(''))


def network_of(path: Path) -> str:
    """Network that the name of a config states: van-b0 for mask-rcnn_van-b0_fpn_1x_coco.py."""
    parts = path.stem.split('_')
    return parts[1 if parts[-1].startswith('coco') else 0]


@contextlib.contextmanager
def scope(cfg: Config):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        yield


def require_library(cfg: Config) -> None:
    """Skip a test of a config whose package set-up does not install."""
    if importlib.util.find_spec(cfg.default_scope) is None:
        pytest.skip(f'needs {cfg.default_scope} (docs/other_projects.md)')


def strip_weights(node) -> None:
    """Remove every ``init_cfg`` that reads a file."""
    if isinstance(node, dict):
        init = node.get('init_cfg')
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            node['init_cfg'] = None
        for value in node.values():
            strip_weights(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            strip_weights(value)


def narrow(model: Config) -> None:
    """Make the layers within the heads narrow: most of their weights, and of the time of a step.

    Backbone, neck, and what the parts give each other stay; :func:`full` has all of it.
    """
    widths = dict(fc_out_channels=64, conv_out_channels=32, feat_channels=64, channels=64)
    roi_head = model.get('roi_head') or {}
    parts = [model.get(name) for name in ('bbox_head', 'decode_head', 'auxiliary_head')]
    parts += [roi_head.get(name) for name in ('bbox_head', 'mask_head')]
    heads = [head for part in parts for head in (part if isinstance(part, list) else [part])]
    for head in filter(None, heads):
        # its parts have one width
        if 'pixel_decoder' in head or head.type == 'HTCMaskHead':
            continue
        head.update({key: width for key, width in widths.items() if key in head})


def shallow(cfg: Config) -> None:
    """Leave two blocks per stage of a backbone (two may differ); :func:`full` has all of them."""
    backbone = cfg.model.backbone
    with MODELS.switch_scope_and_registry(cfg.default_scope) as registry:
        network = registry.get(backbone.type)
    if not hasattr(network, 'resolve_arch'):
        shorten_arguments(backbone, getattr(network, 'arch_settings', {}))
        return
    default = inspect.signature(network).parameters['arch'].default
    arch = network.resolve_arch(backbone.get('arch', default)).to_dict()
    for key, value in arch.items():
        if key.endswith('depths') and isinstance(value, (list, tuple)):
            arch[key] = [min(depth, 2) for depth in value]
    try:
        with torch.device('meta'):
            MODELS.build({**backbone, 'arch': arch, 'init_cfg': None})
    except (ValueError, TypeError):  # settings of single blocks that are no longer there
        return
    except (RuntimeError, NotImplementedError):  # an __init__ that reads values
        pass
    backbone.arch = arch


def shorten_arguments(backbone: Config, settings: dict) -> None:
    """The same for a network of MMDetection or MMPretrain, as far as it is given its depths."""
    if isinstance(backbone.get('arch'), str) and backbone.arch in settings:
        backbone.arch = copy.deepcopy(settings[backbone.arch])
    for part in (backbone, backbone.get('arch')):
        for key in {'depths', 'num_layers'}.intersection(part if isinstance(part, dict) else ()):
            if isinstance(part[key], (list, tuple)):
                part[key] = [min(depth, 2) for depth in part[key]]


def masked(model: Config) -> bool:
    """Whether it is a Mask2Former, whose attention masks depend on values."""
    return 'panoptic_head' in model or 'pixel_decoder' in model.get('decode_head', {})


class ValuesOnCPU(TorchFunctionMode):
    """Leaves the rates of drop path on the CPU, which other libraries read as numbers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.linspace:
            kwargs = dict(device='cpu') | kwargs
        return func(*args, **kwargs)


def full(path: Path, device: str = 'meta') -> torch.nn.Module:
    """The network of a config in its whole width, on the meta device if it can be built there."""
    cfg = fromfile(path)
    strip_weights(cfg.model)
    with scope(cfg):
        try:
            with torch.device(device), ValuesOnCPU():
                return MODELS.build(cfg.model)
        except (RuntimeError, NotImplementedError):  # an __init__ that reads values
            return MODELS.build(cfg.model)


def reduced(path: Path) -> Config:
    """A config with fewer proposals and points and small padding; the network as it is."""
    cfg = fromfile(path)
    model = cfg.model
    strip_weights(model)
    pre = model.data_preprocessor
    if 'size' in pre:
        pre.size = (SIZE, SIZE)
    if pre.get('pad_size_divisor', 1) > SIZE:
        pre.pad_size_divisor = SIZE
    for augment in pre.get('batch_augments') or []:
        augment.size = (SIZE, SIZE)
    for name in ('encoder', 'decoder'):  # of DETR
        if 'num_layers' in model.get(name, {}):
            model[name].num_layers = 2
    for part in (model.get('train_cfg') or {}, model.get('test_cfg') or {}):
        for name in ('rpn', 'rpn_proposal'):
            if 'max_per_img' in part.get(name, {}):
                part[name].max_per_img = 20
        if 'num_points' in part:
            part.num_points = 64
    return cfg


def build(cfg: Config) -> torch.nn.Module:
    torch.manual_seed(0)
    with scope(cfg):
        model = MODELS.build(cfg.model)
        model.init_weights()
    return revert_sync_batchnorm(model)


def optimizer(cfg: Config, model: torch.nn.Module):
    set_training_amp(cfg, None, off=True)
    with scope(cfg):
        return build_optim_wrapper(model, cfg.optim_wrapper)


def warm_up(cfg: Config, wrapper) -> None:
    """Set the rate of the first iteration: the full one may be too much for untrained weights."""
    for scheduler in cfg.param_scheduler:
        if scheduler.type == 'LinearLR' and scheduler.get('begin', 0) == 0:
            for group in wrapper.optimizer.param_groups:
                group['lr'] *= max(scheduler.start_factor, 1e-3)  # enough to see a change
            return
    for group in wrapper.optimizer.param_groups:  # as in SAN's recipe, of 0.1 for 256 images
        group['lr'] = min(group['lr'], 1e-4)


def bound(cfg: Config) -> bool:
    """Whether the network takes images of one size only."""
    backbone = cfg.model.backbone
    whole = backbone.type == 'SwinTransformer' and backbone.get('window_size') == 14
    return backbone.get('positions') == 'flat' or whole


def smallest(cfg: Config) -> int:
    """Side of the images: mmcv's deformable convolutions need maps as large as their kernel."""
    if bound(cfg):
        return 224
    if cfg.train_dataloader.dataset.type == 'CIFAR10':
        return 32
    return SIZE * 3 // 2 if cfg.model.backbone.get('dcn') else SIZE


def batch(cfg: Config, n: int = 2, size: tuple[int, int] | None = None) -> dict:
    """Random images with the annotations that the model of the config needs."""
    rng = np.random.default_rng(0)
    h, w = size or (smallest(cfg),) * 2
    inputs = [torch.from_numpy(rng.integers(0, 256, (3, h, w), dtype=np.uint8)) for _ in range(n)]
    return dict(inputs=inputs, data_samples=[_sample(cfg, rng, h, w) for _ in range(n)])


def _sample(cfg: Config, rng: np.random.Generator, h: int, w: int):
    meta = dict(
        img_id=0,
        img_path='',
        img_shape=(h, w),
        ori_shape=(h, w),
        pad_shape=(h, w),
        batch_input_shape=(h, w),
        scale_factor=(1.0, 1.0),
        flip=False,
    )
    if cfg.default_scope == 'mmpretrain':
        classes = cfg.model.head.num_classes
        return DataSample(metainfo=meta).set_gt_label(int(rng.integers(classes)))
    if cfg.default_scope == 'mmseg':
        classes = cfg.model.decode_head.num_classes
        labels = torch.from_numpy(rng.integers(0, classes, (1, h, w)))
        return SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=labels))
    if cfg.default_scope == 'mmpose':
        return person(meta, cfg.model.head.out_channels, cfg.train_dataloader.dataset.type)
    boxes = torch.tensor([[4, 4, h // 2, w // 2], [w // 3, h // 3, w - 4, h - 4]])
    masks = np.zeros((2, h, w), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(metainfo=meta)
    if cfg.default_scope == 'mmrotate':
        sample.gt_instances = rotated_instances(boxes)
        return sample
    sample.gt_instances = InstanceData(
        bboxes=boxes.float(), labels=torch.tensor([0, 1]), masks=BitmapMasks(masks, h, w)
    )
    sample.gt_sem_seg = PixelData(sem_seg=torch.full((1, h, w), 81))
    return sample


def person(meta: dict, points: int, dataset: str) -> BaseDataElement:
    """A person that fills its image, with heatmaps of ``points`` keypoints."""
    from mmpose.datasets.datasets.utils import parse_pose_metainfo
    from mmpose.registry import DATASETS
    from mmpose.structures import PoseDataSample

    h, w = meta['img_shape']
    known = parse_pose_metainfo(DATASETS.get(dataset).METAINFO)
    size = np.array([w, h], np.float32)
    sample = PoseDataSample(
        metainfo=dict(meta, input_size=(w, h), input_center=size / 2, input_scale=size)
        | {key: known[key] for key in ('flip_indices', 'upper_body_ids', 'lower_body_ids')}
    )
    sample.gt_instances = InstanceData(bboxes=np.array([[0, 0, w, h]]), bbox_scores=np.ones(1))
    sample.gt_instance_labels = InstanceData(keypoint_weights=torch.ones(1, points))
    sample.gt_fields = PixelData(heatmaps=torch.rand(points, h // 4, w // 4))
    return sample


def rotated_instances(boxes: torch.Tensor) -> InstanceData:
    """Objects of two classes, upright (n, 4) boxes turned by 0.5."""
    from mmrotate.structures import RotatedBoxes

    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    turned = torch.cat([centres, sizes, torch.full_like(centres[:, :1], 0.5)], 1)
    return InstanceData(bboxes=RotatedBoxes(turned), labels=torch.arange(len(boxes)))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
