"""Choice of tests by part, tiny data sets, configs for them, tools called in this process.

OpenMMLab is imported where a fixture needs it: tests of layers and converters run without.
"""

import contextlib
import gc
import importlib.util
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import hybrid_mm  # noqa: F401  before MMDetection and MMSegmentation, which refuse mmcv 2.2 (B5)

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ('square', 'disc', 'bar')
SIZE = 64
IMPORTED = [0]  # modules, whenever they were spared the collection of garbage
# drawing numbers on the meta device, which has no values: torch does it in Python, and most of the
# time of making a network there is that
DRAWS = torch.library.Library('aten', 'IMPL', 'Meta')
for _name in ('normal_', 'uniform_'):
    with contextlib.suppress(RuntimeError):  # torch 2.1 lets nobody replace its own
        DRAWS.impl(_name, lambda self, *args, **kwargs: self)


def pytest_addoption(parser) -> None:
    parser.addoption(
        '--parts',
        type=lambda text: set(text.split(',')),
        help='of the tests that are marked part_of(...), only those of these parts, '
        'e.g. network:VAN,tree:van,slug:van',
    )


def pytest_collection_modifyitems(config, items) -> None:
    wanted = config.getoption('--parts')
    if not wanted:
        return
    kept, left_out = [], []
    for item in items:
        parts = {part for mark in item.iter_markers('part_of') for part in mark.args}
        (left_out if parts and not parts & wanted else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def keep_what_is_imported() -> None:
    """Spare all later collections of garbage what is there to the end of the process."""
    gc.collect()
    gc.freeze()
    IMPORTED.append(len(sys.modules))


def pytest_collection_finish() -> None:
    keep_what_is_imported()
    # the default goes through everything that lives for every few networks: 7 % of the time
    gc.set_threshold(20_000, 10, 10)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """MMEngine collects garbage for every data set: a second each with all that tests import."""
    if len(sys.modules) > IMPORTED[-1] + 20:
        keep_what_is_imported()


def _picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """Noise with one rectangle of each class: picture, label map (0 is background), objects."""
    image = rng.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.zeros((SIZE, SIZE), np.uint8)
    objects = []
    for label in range(len(CLASSES)):
        w, h = (int(v) for v in rng.integers(10, 18, 2))
        x, y = label * 21 + int(rng.integers(0, 21 - w + 1)), int(rng.integers(0, SIZE - h))
        image[y : y + h, x : x + w] = np.eye(3, dtype=np.uint8)[label] * 200 + 30
        labels[y : y + h, x : x + w] = label + 1
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        objects.append(
            dict(category_id=label + 1, bbox=[x, y, w, h], area=w * h, segmentation=[corners])
        )
    return image, labels, objects


@pytest.fixture(scope='session')
def tiny_coco(tmp_path_factory) -> Path:
    """Folder in COCO's layout: 8 training and 4 validation images of 64 x 64, 3 classes."""
    import cv2

    root = tmp_path_factory.mktemp('coco')
    (root / 'annotations').mkdir()
    rng = np.random.default_rng(0)
    for split, number in (('train', 8), ('val', 4)):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(number):
            image, _, objects = _picture(rng)
            cv2.imwrite(str(root / split / f'{i}.png'), image)
            images.append(dict(id=i, file_name=f'{i}.png', width=SIZE, height=SIZE))
            for item in objects:
                number_so_far = len(annotations) + 1
                annotations.append(dict(id=number_so_far, image_id=i, iscrowd=0, **item))
        categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
        data = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(data))
    return root


@pytest.fixture(scope='session')
def tiny_ade(tmp_path_factory) -> Path:
    """Folder in ADE20K's layout: 8 training and 4 validation images, 3 classes and 0 = other."""
    import cv2

    root = tmp_path_factory.mktemp('ade')
    rng = np.random.default_rng(1)
    for split, number in (('training', 8), ('validation', 4)):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for i in range(number):
            image, labels, _ = _picture(rng)
            cv2.imwrite(str(root / 'images' / split / f'{i}.png'), image)
            cv2.imwrite(str(root / 'annotations' / split / f'{i}.png'), labels)
    return root


RUNTIME = """
default_hooks = dict(
    timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='hybrid_mm.AtomicCheckpointHook', by_epoch=False, interval=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='{short}VisualizationHook'))
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
visualizer = dict(type='{visualizer}', vis_backends=[dict(type='LocalVisBackend')],
                  name='visualizer')
log_processor = dict(window_size=1, by_epoch=False)
randomness = dict(seed=0)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=100)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
backbone = dict(type='hybrid_mm.VAN', drop_path_rate=0.0, norm_cfg=dict(type='BN'),
                arch=dict(embed_dims=[8, 8, 16, 16], depths=[1, 1, 1, 1], mlp_ratios=[2] * 4))
"""

DETECTION = """
default_scope = 'mmdet'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                                          'scale_factor'))]
pipeline.insert(1, dict(type='Resize', scale=(64, 64), keep_ratio=True))
data = dict(type='CocoDataset', data_root='{root}', pipeline=pipeline,
            metainfo=dict(classes=('square', 'disc', 'bar')))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='annotations/train.json', data_prefix=dict(img='train/'), **data))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='annotations/val.json', data_prefix=dict(img='val/'), test_mode=True,
                 **data))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', metric='bbox', ann_file='{root}/annotations/val.json')
test_evaluator = val_evaluator
auto_scale_lr = dict(enable=False, base_batch_size=16)
model = dict(
    type='FCOS',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[0.] * 3, std=[255.] * 3,
                           pad_size_divisor=32),
    backbone=backbone,
    neck=dict(type='FPN', in_channels=[8, 8, 16, 16], out_channels=16, start_level=1,
              add_extra_convs='on_output', num_outs=5),
    bbox_head=dict(type='FCOSHead', num_classes=3, in_channels=16, feat_channels=16,
                   stacked_convs=1, strides=[8, 16, 32, 64, 128],
                   norm_cfg=dict(type='GN', num_groups=4)),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.01,
                  nms=dict(type='nms', iou_threshold=0.5), max_per_img=10))
"""

SEGMENTATION = """
default_scope = 'mmseg'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs')]
data = dict(type='BaseSegDataset', data_root='{root}', pipeline=pipeline, reduce_zero_label=True,
            img_suffix='.png', seg_map_suffix='.png',
            metainfo=dict(classes=('square', 'disc', 'bar'),
                          palette=[[255, 0, 0], [0, 255, 0], [0, 0, 255]]))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(data_prefix=dict(img_path='images/training',
                                  seg_map_path='annotations/training'), **data))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix=dict(img_path='images/validation',
                                  seg_map_path='annotations/validation'), **data))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
auto_scale_lr = dict(enable=False, base_batch_size=16)
tta_model = dict(type='SegTTAModel')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[0.] * 3, std=[255.] * 3,
                           size=(64, 64), pad_val=0, seg_pad_val=255),
    backbone=backbone,
    neck=dict(type='FPN', in_channels=[8, 8, 16, 16], out_channels=16, num_outs=4),
    decode_head=dict(type='FPNHead', in_channels=[16] * 4, in_index=[0, 1, 2, 3],
                     feature_strides=[4, 8, 16, 32], channels=16, num_classes=3, dropout_ratio=0,
                     norm_cfg=dict(type='SyncBN'), align_corners=False,
                     loss_decode=dict(type='CrossEntropyLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
"""


def _write(path: Path, template: str, root: Path, short: str, visualizer: str) -> Path:
    runtime = RUNTIME.replace('{short}', short).replace('{visualizer}', visualizer)
    path.write_text(runtime + template.replace('{root}', str(root)))
    return path


@pytest.fixture
def det_config(tiny_coco, tmp_path) -> Path:
    """Config of a small FCOS on ``tiny_coco``: two iterations of two images."""
    return _write(tmp_path / 'tiny_det.py', DETECTION, tiny_coco, 'Det', 'DetLocalVisualizer')


@pytest.fixture
def seg_config(tiny_ade, tmp_path) -> Path:
    """Config of a small Semantic FPN on ``tiny_ade``: two iterations of two images."""
    return _write(tmp_path / 'tiny_seg.py', SEGMENTATION, tiny_ade, 'Seg', 'SegLocalVisualizer')


def load_tool(name: str):
    """Module of ``tools/NAME.py``."""
    path = ROOT / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # as Python does for a script
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def _forget_runs() -> None:
    """Drop MMEngine's global instances, which a new process would not have."""
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    managed = [MMLogger, MessageHub, DefaultScope, Visualizer]
    while managed:
        cls = managed.pop()
        managed += cls.__subclasses__()
        cls._instance_dict.clear()


# what torch before 2.6 says where it lacks half precision on CPUs, or fake tensors without a GPU
OLD = (
    "not implemented for 'Half'",
    'AutocastCPU only support Bfloat16',
    'Found no NVIDIA driver',
    'CUDA driver version is insufficient',
    'tensors on a GPU that is not there need torch >= 2.6',
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip what an old torch cannot do on CPUs, or cannot compile."""
    try:
        return (yield)
    except RuntimeError as error:
        torch = sys.modules.get('torch')
        old = torch is not None and not hasattr(torch, 'get_autocast_dtype')
        older = torch is not None and not hasattr(torch.compiler, '_is_exporting_flag')
        if older and any(text in str(error) for text in OLD):
            pytest.skip(f'torch {torch.__version__} on CPUs: {str(error).splitlines()[0]}')
        if old and type(error).__module__ == 'torch._dynamo.exc':
            pytest.skip(f'torch {torch.__version__} compiles less: {str(error).splitlines()[0]}')
        raise


@pytest.fixture(autouse=True)
def own_default_scope():
    """Take the default scope of MMEngine, which configs set, away from the tests that follow."""
    yield
    if 'mmengine.registry' in sys.modules:
        sys.modules['mmengine.registry'].DefaultScope._instance_dict.clear()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A function that makes a registry of published weights: text of ``published/<tree>.yml``.

    The test runs in an empty folder, and no files of the machine's are found.
    """
    from hybrid_mm.weights import finding
    from hybrid_mm.weights import registry as module

    caches = (module.all_weights, module._preprocessing, finding._ambiguous)

    def make(**trees: str) -> None:
        folder = tmp_path / 'registry'
        (folder / 'published').mkdir(parents=True)
        (folder / 'preprocessing.yml').write_text('[]')
        for tree, text in trees.items():
            (folder / f'published/{tree}.yml').write_text(text)
        monkeypatch.setattr(module, 'FOLDER', folder)
        for cached in caches:
            cached.cache_clear()

    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.delenv('HYBRID_MM_WEIGHTS', raising=False)
    yield make
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def interpreter(monkeypatch):
    """Triton's kernels run in its interpreter, on the CPU."""
    pytest.importorskip('triton', minversion='3.2')
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, tl

    dot = InterpreterBuilder.create_dot

    def as_numbers(x):
        """Numbers in bfloat16, of which the interpreter's product takes the bits for integers."""
        if x.dtype.scalar != tl.bfloat16:
            return x
        return TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    monkeypatch.setattr(
        InterpreterBuilder,
        'create_dot',
        lambda self, a, b, *args: dot(self, as_numbers(a), as_numbers(b), *args),
    )
    monkeypatch.setenv('TRITON_INTERPRET', '1')


@pytest.fixture
def opcheck():
    """``torch.library.opcheck``; before torch 2.4 it is part of torch's own tests."""
    if hasattr(torch.library, 'opcheck'):
        return torch.library.opcheck
    pytest.importorskip('expecttest', reason='opcheck of this torch needs expecttest')
    from torch.testing._internal.optests import opcheck

    def check(op, args, **options):
        op = getattr(op, '_overload', op)  # of what stands for torch.library.custom_op
        opcheck(op if hasattr(op, '_schema') else op.default, args, **options)

    return check


@pytest.fixture
def noting_detector():
    """Class of a model whose backbone and head note the types that they see and give."""
    from torch import nn

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

        def extract_feat(self, x, count=0):
            y = self.backbone(x)
            self.inside = y.dtype
            return [y, (y * 2, count), dict(y=y.double(), n=torch.arange(3))]

        def forward(self, x):
            first, (second, _), third = self.extract_feat(x, count=3)
            self.outside = (first.dtype, second.dtype, third['y'].dtype, third['n'].dtype)
            return self.head(first)

    return Detector


# End-to-end graphs as tools/export_onnx.py writes them, of means and maxima of the channels
ONNX_GRAPHS = dict(
    detection="""<ir_version: 10, opset_import: ["" : 18]>
detector (uint8[N,H,W,3] image) => (
  float[N,3,4] boxes, float[N,3] scores, int64[N,3] labels, float[N,3,28,28] masks
)
<
  float[1,3,4] corners = {4,2,20,10, 0,0,31.5,47, 0,0,0,0}, int64[1,3] classes = {2,0,-1},
  int64[2] sides = {1,2}, float top = {255}
>
{
  x = Cast<to=1>(image)
  mean = ReduceMean<keepdims=0>(x, sides)
  scores = Div(mean, top)
  zero = Sub(scores, scores)
  last = Constant<value_ints=[2]>()
  far = Constant<value_ints=[2, 3]>()
  column = Unsqueeze(zero, last)
  boxes = Add(corners, column)
  whole = Cast<to=7>(zero)
  labels = Add(classes, whole)
  field = Constant<value_float=0.7>()
  shape = Constant<value_ints=[1, 1, 28, 28]>()
  full = Expand(field, shape)
  corner = Unsqueeze(zero, far)
  masks = Add(full, corner)
}""",
    segmentation="""<ir_version: 10, opset_import: ["" : 18]>
segmenter (uint8[N,H,W,3] image, int64[2] size) => (uint8[N,h,w] label_map)
<int64[2] size = {64,64}>
{
  x = Cast<to=1>(image)
  place = ArgMax<axis=3, keepdims=0>(x)
  one = Constant<value_ints=[1]>()
  map = Unsqueeze(place, one)
  decimal = Cast<to=1>(map)
  shape = Shape<start=0, end=2>(decimal)
  sizes = Concat<axis=0>(shape, size)
  resized = Resize<mode="nearest">(decimal, , , sizes)
  flat = Squeeze(resized, one)
  label_map = Cast<to=2>(flat)
}""",
    classification="""<ir_version: 10, opset_import: ["" : 18]>
classifier (uint8[N,H,W,3] image) => (float[N,3] scores)
<int64[2] sides = {1,2}>
{
  x = Cast<to=1>(image)
  mean = ReduceMean<keepdims=0>(x, sides)
  scores = Softmax(mean)
}""",
)


@pytest.fixture
def onnx_file(tmp_path):
    """A function that writes a small end-to-end file of a task, with metadata; returns its path.

    The scores of a detector's two objects are the means of red and green, the labels of a
    segmenter and the scores of a classifier are of the channels red, green, blue.
    """
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')

    def write(kind: str, *replace: tuple[str, str], **metadata) -> Path:
        graph = ONNX_GRAPHS[kind]
        for before, after in replace:
            assert before in graph
            graph = graph.replace(before, after)
        model = onnx.parser.parse_model(graph)
        packs = dict(detection='PackDetInputs', segmentation='PackSegInputs')
        pipeline = [dict(type='LoadImageFromFile'), dict(type=packs.get(kind, 'PackInputs'))]
        found = dict(task=kind, classes=CLASSES, test_pipeline=pipeline, hybrid_mm='0.1.0')
        found['palette'] = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
        found |= metadata
        texts = {k: json.dumps(v) for k, v in found.items() if v is not None}
        onnx.helper.set_model_props(model, texts)
        path = tmp_path / f'{kind}.onnx'
        onnx.save(model, str(path))
        return path

    return write


@pytest.fixture
def plain_runs(monkeypatch):
    """Runs that do not look at compilers, nor lay out the config that they write, five times each.

    Nor do they ask git for MMEngine's version at every checkpoint. These take most of the time of a
    run of two iterations. Nor do they pause between epochs, wait five seconds for every worker of a
    loader that an error ended, or collect garbage for every data set.
    """
    no_garbage = SimpleNamespace(collect=lambda: 0)
    monkeypatch.setattr('mmengine.dataset.base_dataset.gc', no_garbage)
    monkeypatch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', 0.3)
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    for module in ('runner.runner', 'hooks.runtime_info_hook'):
        monkeypatch.setattr(f'mmengine.{module}.get_git_hash', str)
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)

    def unformatted(text, **kwargs):
        return text, False

    with monkeypatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', unformatted)
        yield patch


def _fork(function, environment: dict, log: Path) -> int:
    """Start a function in a copy of this process; return the number of that."""

    number = os.fork()
    if number:
        return number
    status = 1
    try:
        os.environ.update(environment)
        os.setpgid(0, 0)
        with open(log, 'w', buffering=1) as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
            sys.stdout = sys.stderr = file
            torch.set_num_threads(1)
            try:
                status = function() or 0
            except BaseException:
                traceback.print_exc()
                raise
    finally:
        os._exit(status)


@pytest.fixture
def in_two_processes():
    """Call a function of a test module with (rank, *arguments), rank 0 and 1, at the same time.

    They come from a server without threads: a copy of this process could wait for ever for a lock
    that another thread held when it was copied.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['torch.distributed'])

    def call(function, *arguments, seconds=100) -> None:
        names = dict(path=function.__code__.co_filename, name=function.__name__)
        ranks = [
            context.Process(
                target=exec,
                args=(_CALL, names | dict(arguments=(rank, *arguments), seconds=seconds - 10)),
            )
            for rank in (0, 1)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(seconds)
        assert [process.exitcode for process in ranks] == [0, 0]

    return call


# a process that takes too long prints where it is
_CALL = """
import faulthandler, runpy
faulthandler.dump_traceback_later(seconds, exit=True)
runpy.run_path(path)[name](*arguments)
faulthandler.cancel_dump_traceback_later()
"""


@pytest.fixture
def fork(tmp_path, plain_runs):
    """Start functions at the same time, each in a copy of this process; wait for them.

    Nothing is imported anew, which is most of the time of a short run. On a machine with GPUs
    PyTorch cannot be forked; the fixture skips there.
    """
    if torch.cuda.is_available():
        pytest.skip('PyTorch with GPUs cannot be forked')
    started = []

    def start(functions, seconds=200, **environment) -> list[int]:
        """Exit codes of functions; they are negative numbers of signals, as in subprocess."""
        logs = [tmp_path / f'fork{len(started) + i}.log' for i in range(len(functions))]
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = str(probe.getsockname()[1])
        numbers = []
        for rank, (function, log) in enumerate(zip(functions, logs, strict=True)):
            places = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=len(functions), MASTER_PORT=port)
            places = {k: str(v) for k, v in places.items()} | dict(MASTER_ADDR='127.0.0.1')
            alone = {} if len(functions) == 1 else places
            numbers.append(_fork(function, alone | environment, log))
        started.extend(numbers)
        codes: dict[int, int] = {}
        deadline = time.monotonic() + seconds
        while len(codes) < len(numbers) and time.monotonic() < deadline:
            for number in numbers:
                if number not in codes and (done := os.waitpid(number, os.WNOHANG))[0]:
                    codes[number] = os.waitstatus_to_exitcode(done[1])
                    started.remove(number)
            time.sleep(0.005)
        text = ''.join(log.read_text()[-4000:] for log in logs if log.exists())
        assert len(codes) == len(numbers), f'not done after {seconds} s: {text}'
        start.text = text
        return [codes[number] for number in numbers]

    yield start
    for number in started:
        with contextlib.suppress(OSError):
            os.killpg(number, signal.SIGKILL)
            os.waitpid(number, 0)


@pytest.fixture
def fork_tool(request):
    """Run ``tools/NAME.py`` with ``--launcher pytorch`` in several processes, on the CPU.

    They are forked; on a machine with GPUs, where PyTorch cannot be, torchrun starts them.
    """

    def call(
        name: str, processes: int, config: Path, *argv, dies=None, by=signal.SIGKILL, status=None
    ) -> str:
        """Run a tool to its end, or until a signal at a moment: ``dies(shoot)`` arranges it.

        It must end with ``status``, by default that of the signal, or 0. Returns what it wrote.
        """
        from mmengine.config import Config

        launcher = ['--launcher', 'pytorch'] if processes > 1 else []
        arguments = [str(arg) for arg in (config, *argv)] + launcher
        if torch.cuda.is_available() and dies is None:
            start = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
            line = [sys.executable, *(start if processes > 1 else []), ROOT / f'tools/{name}.py']
            env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
            done = subprocess.run(
                [*line, *arguments],
                env=env | dict(PYTHONPATH=str(ROOT)),
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            return done.stdout + done.stderr
        fork = request.getfixturevalue('fork')
        # imported once, before there are several processes
        scope = Config.fromfile(config).default_scope
        importlib.import_module(f'{scope}.utils').register_all_modules(False)

        def main() -> int:
            _forget_runs()
            if dies:
                dies(lambda: os.kill(os.getpid(), by))
            try:
                return load_tool(name).main(arguments)
            except SystemExit as error:
                return error.code

        codes = fork([main] * processes, CUDA_VISIBLE_DEVICES='')
        expected = status if status is not None else -by if dies else 0
        assert codes == [expected] * processes, fork.text
        return fork.text

    return call


@pytest.fixture
def tool(capsys, monkeypatch, plain_runs):
    """Call ``tools/NAME.py`` with arguments; return its status and what it wrote to stderr.

    What it wrote to stdout is ``tool.out``.
    """
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')

    def call(name: str, *argv) -> tuple[int, str]:
        _forget_runs()
        capsys.readouterr()
        if name == 'print_config':  # what it prints is laid out
            plain_runs.undo()
        status = load_tool(name).main([str(arg) for arg in argv])
        call.out, err = capsys.readouterr()
        return status, err

    yield call
    _forget_runs()


@pytest.fixture
def fails(tool):
    """Call a tool that must end with one ``error:`` line and status 2; return that text."""

    def call(name: str, *argv) -> str:
        status, err = tool(name, *argv)
        assert status == 2, err
        assert 'Traceback' not in err
        errors = [line for line in err.splitlines() if line.startswith('error: ')]
        assert len(errors) == 1, err
        return err[err.index('error: ') :]

    return call
