"""Config of a run from the flags of train.py and test.py, and the runner of such a config.

The functions are in the order in which the two tools call them. The flags have the meaning that
they have in MMDetection, MMSegmentation and MMPretrain; where these differ, the config's
``default_scope`` decides.
"""

import argparse
import copy
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.registry import METRICS, RUNNERS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from hybrid_mm.data.multichannel import PICTURES_BACKEND
from hybrid_mm.engine.hooks.evaluated_images import EvaluatedImagesHook
from hybrid_mm.engine.hooks.non_finite import NonFiniteLossHook
from hybrid_mm.engine.hooks.resumed_settings import ResumedSettingsHook
from hybrid_mm.engine.hooks.strict_loading import (
    SameClassesHook,
    StartingWeightsHook,
    StrictLoadingHook,
)
from hybrid_mm.engine.optim_wrapper import autocast_features
from hybrid_mm.engine.work_dir_lock import locked
from hybrid_mm.errors import UserError, warn
from hybrid_mm.run.checks.channels import loader_of
from hybrid_mm.run.checks.datasets import has_base, readers
from hybrid_mm.run.checks.maps import check_maps
from hybrid_mm.run.checks.schedule import ScheduleHook
from hybrid_mm.run.config import check_texts, checkpoint_hook, load_config, task_of
from hybrid_mm.run.distributed import init_distributed, launched_rank
from hybrid_mm.run.interrupt import watch
from hybrid_mm.run.outputs import check_output_folder
from hybrid_mm.run.registered import registered_class
from hybrid_mm.run.resume import checkpoint_folders
from hybrid_mm.run.summary import SummaryHook
from hybrid_mm.run.total_batch import count_accumulation

__all__ = ['testing_runner', 'training_runner']

# strategies of MMEngine's FlexibleRunner with the whole model in every process
_UNSHARDED = (None, 'SingleDeviceStrategy', 'DDPStrategy')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# optimizer wrappers in float32, in float16 with a scaler, in bfloat16
_PRECISIONS = (
    ('OptimWrapper', 'AmpOptimWrapper', 'hybrid_mm.AutocastOptimWrapper'),
    (
        'hybrid_mm.AGCOptimWrapper',
        'hybrid_mm.AGCAmpOptimWrapper',
        'hybrid_mm.AGCAutocastOptimWrapper',
    ),
)
EVALUATORS = ('val_evaluator', 'test_evaluator')


def config_of_run(args: argparse.Namespace) -> Config:
    """Read the config of a run and apply the flags that training and testing share."""
    cfg = load_config(args.config, args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    cfg.work_dir = os.path.expanduser(cfg.work_dir)  # not by the shell in --work-dir=~/x
    if '://' in cfg.work_dir:
        raise UserError(
            f'work_dir {cfg.work_dir} must be a local folder; only checkpoints can be elsewhere '
            '(default_hooks.checkpoint.out_dir)'
        )
    check_output_folder(cfg.work_dir, 'work_dir')
    check_texts(cfg)
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is None:
            continue
        if args.no_pin_memory:
            loader.pin_memory = False
        if args.no_persistent_workers or loader.get('num_workers', 0) == 0:
            # torch refuses persistent workers where there are none
            loader.persistent_workers = False
    if args.seed is not None or args.deterministic:
        randomness = cfg.setdefault('randomness', ConfigDict())
        if args.seed is not None:
            randomness.seed = args.seed
        if args.deterministic:
            randomness.deterministic = True
    if (cfg.get('randomness') or {}).get('deterministic'):
        # read at the first product; without it, older versions of torch refuse to multiply on a GPU
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    init_distributed(cfg, args.launcher, args.local_rank)
    return cfg


def set_training_amp(cfg: Config, dtype: str | None, off: bool = False) -> None:
    """Set the optimizer wrapper for ``--amp [dtype]`` or ``--no-amp``.

    Without either flag, a config with ``AmpOptimWrapper`` is mixed precision on a GPU, and trains
    in float32 on a CPU, where a line says so.

    Args:
        cfg: Config of the run.
        dtype: 'float16', 'bfloat16', 'auto' (that of the config, or the default of the device), or
            None if the flag is not given.
        off: Whether ``--no-amp`` is given: float32 on every device.

    Raises:
        UserError: float16 on CPU, an optimizer wrapper that has no mixed precision, or both flags.
    """
    wrapper = cfg.optim_wrapper
    name = wrapper.get('type', 'OptimWrapper')
    if off and dtype is not None:
        raise UserError('--amp and --no-amp exclude each other; leave one of them out')
    kinds = next((row for row in _PRECISIONS if name in row), None)
    if kinds is None:
        if dtype is None and not off:
            return
        raise UserError(
            f'{"--no-amp" if off else "--amp"} needs optim_wrapper.type '
            f'{", ".join(row[0] for row in _PRECISIONS)} or a sibling with Amp, got {name}'
        )
    full, scaled, autocast = kinds
    on_cpu = dtype is None and name == scaled and not torch.cuda.is_available()
    if off or on_cpu:
        if on_cpu and not off:
            warn(f'{name} needs a GPU: training in float32; --amp trains in bfloat16')
        _set_precision(wrapper, full)
    elif dtype is not None or name == scaled:
        if _amp_dtype(dtype, wrapper.get('dtype')) == 'bfloat16':
            _set_precision(wrapper, autocast, dtype='bfloat16')
        else:
            wrapper.update(type=scaled, dtype='float16')
            wrapper.setdefault('loss_scale', 'dynamic')


def _set_precision(wrapper: ConfigDict, name: str, **settings: str) -> None:
    """Make an optimizer wrapper one without a scaler."""
    for key in ('dtype', 'loss_scale', 'use_fsdp'):
        wrapper.pop(key, None)
    wrapper.update(type=name, **settings)


def _amp_dtype(dtype: str | None, configured: str | None = None) -> str:
    """Data type of ``--amp [dtype]``: as named, else as configured, else the device's default."""
    if torch.cuda.is_available():
        return dtype if dtype not in (None, 'auto') else configured or 'float16'
    if dtype == 'float16':
        raise UserError('--amp float16 needs a GPU; on CPU use --amp bfloat16')
    return 'bfloat16'


def set_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the total batch size; see ``hybrid_mm.run.total_batch``.

    Raises:
        UserError: The config does not say to which batch size its learning rate belongs.
    """
    if (cfg.get('auto_scale_lr') or {}).get('base_batch_size') is None:
        raise UserError(
            f'--auto-scale-lr: {cfg.filename} does not say for which total batch size its '
            'learning rate is meant; add auto_scale_lr = dict(enable=False, base_batch_size=N)'
        )
    cfg.auto_scale_lr.enable = True


def disable_validation(cfg: Config) -> None:
    """Train without validation, and without a choice of the best checkpoint."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    checkpoint = cfg.get('default_hooks', {}).get('checkpoint')
    if checkpoint is not None:
        # MMEngine would ask the (missing) validation for a metric
        checkpoint.pop('save_best', None)


def set_atomic_checkpoints(cfg: Config) -> None:
    """Save with ``hybrid_mm.AtomicCheckpointHook`` in place of MMEngine's ``CheckpointHook``.

    The hook has the same arguments, loses nothing at a crash, and leaves files of other runs alone.
    """
    if 'runner_type' in cfg:  # the weights may be sharded, and each process saves its own
        return
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = ConfigDict()
    # MMEngine's default, if a config names none
    hook = cfg.default_hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    if hook and hook.get('type') in ('CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook):
        hook.type = 'hybrid_mm.AtomicCheckpointHook'


def training_lock(cfg: Config) -> AbstractContextManager[None]:
    """Context in which no other training can use the folders of a run.

    Raises:
        UserError: On entering, if another one does, or if a folder cannot be written.
    """
    folders = [cfg.work_dir, *checkpoint_folders(cfg.work_dir, checkpoint_hook(cfg))]
    return locked(folders, launched_rank(cfg.launcher))


def set_exact_resume(cfg: Config) -> None:
    """Make the training one that can be resumed exactly; see ``hybrid_mm.ExactResumeHook``."""
    loader = cfg.train_dataloader
    if loader.dataset.get('type') != 'hybrid_mm.SeededDataset':
        loader.dataset = ConfigDict(type='hybrid_mm.SeededDataset', dataset=loader.dataset)
    if loader.get('sampler') and loader.sampler.get('type') != 'hybrid_mm.PlacedSampler':
        loader.sampler = ConfigDict(type='hybrid_mm.PlacedSampler', sampler=loader.sampler)
    hooks = list(cfg.get('custom_hooks') or ())
    if not any(hook.get('type') == 'hybrid_mm.ExactResumeHook' for hook in hooks):
        hooks.append(ConfigDict(type='hybrid_mm.ExactResumeHook'))
    cfg.custom_hooks = hooks


def set_tracking(cfg: Config, tensorboard: bool, wandb: str | None) -> None:
    """Make the visualizer write for TensorBoard and Weights & Biases as well.

    Args:
        cfg: Config of the run.
        tensorboard: Whether ``--tensorboard`` was given.
        wandb: Project of ``--wandb``, or None.

    Raises:
        UserError: The package for it is not installed.
    """
    added: list[tuple[str, str, dict[str, Any]]] = []
    if tensorboard:
        added.append(('--tensorboard', 'tensorboard', dict(type='TensorboardVisBackend')))
    if wandb is not None:
        run = dict(project=wandb, name=os.path.basename(os.path.normpath(cfg.work_dir)))
        added.append(('--wandb', 'wandb', dict(type='WandbVisBackend', init_kwargs=run)))
    for flag, package, backend in added:
        if find_spec(package) is None:
            raise UserError(
                f'{flag} needs the package {package}: pip install {package} '
                f"(or 'hybrid-mm[{package}]')"
            )
        if cfg.get('visualizer') is None:
            cfg.visualizer = ConfigDict(type='mmengine.Visualizer')
        backends = list(cfg.visualizer.get('vis_backends') or [dict(type='LocalVisBackend')])
        if not any(backend['type'] == other['type'] for other in backends):
            backends.append(ConfigDict(backend))
        cfg.visualizer.vis_backends = backends


def set_visualization(
    cfg: Config, show: bool, show_dir: str | None, wait_time: float, interval: int | None
) -> None:
    """Draw predictions in windows (``show``) or into ``show_dir``.

    Raises:
        UserError: The config has no visualization hook.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError(
            '--show and --show-dir need a visualization hook in default_hooks of the config, e.g. '
            "default_hooks = dict(visualization=dict(type='DetVisualizationHook'))"
        )
    task = task_of(cfg)
    hook.update(show=show, wait_time=wait_time)
    hook['enable' if task in ('classification', 'pose') else 'draw'] = True
    if interval is not None:
        hook.interval = interval
    elif task == 'segmentation':  # MMSegmentation 1.2 leaves samples out, its default is 50
        hook.interval = 1
    if show_dir is None:
        return
    if task == 'detection':
        hook.test_out_dir = show_dir  # under work_dir/timestamp, as in MMDetection
    elif task == 'segmentation':
        cfg.visualizer.save_dir = show_dir
    else:
        hook.out_dir = show_dir


def training_runner(cfg: Config, resumed: str | None = None) -> Runner:
    """Build a runner for training, and check what can be checked of its model.

    Args:
        cfg: Config of the run. Where it resumes is not written into it: it is stored in the work
            dir, and a new run may begin with it.
        resumed: Checkpoint to resume from; None begins anew, whatever ``cfg.resume`` says.

    Raises:
        UserError: Necks or heads do not fit the maps that they get. In ``runner.train()``, if no
            weight of ``load_from`` fits the model, or a run cannot be resumed with its config.
    """
    runner = build_runner(cfg, replaces_config=True)
    runner._resume = resumed is not None
    start = runner._load_from = resumed or cfg.get('load_from')
    check_maps(runner)
    if not any(isinstance(hook, NonFiniteLossHook) for hook in runner.hooks):
        runner.register_hook(NonFiniteLossHook())  # all our configs have it, those of others do not
    count_accumulation(runner)
    runner.register_hook(ScheduleHook())
    # the weights, perhaps: they cannot be compared with a file
    sharded = 'runner_type' in cfg and (cfg.get('strategy') or {}).get('type') not in _UNSHARDED
    if resumed and 'runner_type' not in cfg:
        skip_pretrained(runner.model)
    if start and not sharded:
        hook = StartingWeightsHook if resumed is None else ResumedSettingsHook
        runner.register_hook(hook(start))
        runner.register_hook(SameClassesHook(start, 'train_dataloader', resumed is not None))
    add_summary(runner, cfg, resumed)
    return runner


def add_summary(runner: Runner, cfg: Config, resumed: str | None = None) -> None:
    """Let a runner say what it does, and where it stands if a signal ends it."""
    summary = SummaryHook(cfg.filename, resumed)
    runner.register_hook(summary)
    summary.announce(runner)
    watch(runner, resumed)


def skip_pretrained(model: nn.Module) -> None:
    """Let no module read the file that its ``init_cfg`` names: a checkpoint has all weights.

    A run that is resumed needs such files no more, which may be gone by then.
    """
    for module in model.modules():
        init = getattr(module, 'init_cfg', None)
        if isinstance(init, dict) and str(init.get('type')).rpartition('.')[2] == 'Pretrained':
            module.init_cfg = None  # type: ignore[assignment]


def testing_runner(cfg: Config, checkpoint: str | None) -> Runner:
    """Build a runner for testing a checkpoint.

    Args:
        cfg: The config, which is changed.
        checkpoint: File with the weights, in our layout or an official one; None if the model has
            them, as an ONNX file.

    Raises:
        UserError: Necks or heads do not fit the maps that they get. In ``runner.test()``, if the
            weights are those of another model.
    """
    cfg.load_from, cfg.resume = checkpoint, False
    runner = build_runner(cfg)
    if checkpoint is not None:
        check_maps(runner)
        runner.register_hook(StrictLoadingHook(checkpoint))
        runner.register_hook(SameClassesHook(checkpoint, 'test_dataloader'))
    add_summary(runner, cfg)
    return runner


def build_runner(cfg: Config, replaces_config: bool = False) -> Runner:
    """Build the runner of a config; its data sets name their broken samples.

    MMEngine writes the config, with all that was merged into it, to the work dir. It gets the time
    for a name if it would replace the file that the user named, or without ``replaces_config`` any.
    """
    set_sample_checks(cfg)
    set_pictures(cfg)
    if cfg.filename is not None:
        name = Path(cfg.filename).name
        file = Path(cfg.work_dir) / name
        if file.exists() and (not replaces_config or file.samefile(cfg.filename)):
            cfg = copy.copy(cfg)
            cfg.experiment_name = cfg.get('experiment_name') or Path(name).stem
            object.__setattr__(cfg, '_filename', None)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.register_hook(EvaluatedImagesHook())
    return runner


def set_sample_checks(cfg: Config) -> None:
    """Make all data sets name their broken samples; see ``hybrid_mm.data.CheckedDataset``.

    ``skip_bad_samples`` of the config is the number of them that training may leave out. Metrics
    that read a COCO file get it checked as well; see ``hybrid_mm.CheckedCocoMetric``.
    """
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is not None:
            skip = cfg.get('skip_bad_samples', 0) if name == 'train_dataloader' else 0
            loader.dataset = _checked(loader.dataset, skip)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        for name in EVALUATORS:
            if cfg.get(name) is not None:
                cfg[name] = _checked_metrics(cfg[name])


def set_pictures(cfg: Config) -> None:
    """Let the visualization hook draw on pictures of images of any number of channels."""
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    loaders = [
        loader_of(dataset.get('pipeline'))
        for name in ('test_dataloader', 'val_dataloader')
        for dataset in readers((cfg.get(name) or {}).get('dataset') or {})
    ]
    loader = next(filter(None, loaders), None)
    if loader is None or not hook or hook.get('type') == 'hybrid_mm.PictureHook':
        return
    hook.backend_args = dict(backend=PICTURES_BACKEND, loader=loader)
    cfg.default_hooks.visualization = ConfigDict(type='hybrid_mm.PictureHook', inner=hook)


def _checked_metrics(evaluator: Any) -> Any:
    """Check the annotation files of metrics that read them as ``CocoMetric`` does."""
    if isinstance(evaluator, list | tuple):
        return [_checked_metrics(metric) for metric in evaluator]
    if not isinstance(evaluator, dict):
        return evaluator
    if 'metrics' in evaluator:
        evaluator['metrics'] = _checked_metrics(evaluator['metrics'])
    elif evaluator.get('ann_file') is not None:
        cls = registered_class(METRICS, evaluator['type'])
        # LVISMetric has a reader of its own
        if has_base(cls, 'CocoMetric', 'mmdet') and not has_base(cls, 'LVISMetric', 'mmdet'):
            settings = dict(evaluator)
            inner = settings.pop('type')
            return ConfigDict(type='hybrid_mm.CheckedCocoMetric', inner=inner, **settings)
    return evaluator


def _checked(dataset: ConfigDict, skip: int) -> ConfigDict:
    """Wrap the data sets that read files, within those that wrap, join or mix them."""
    if dataset.get('type') in ('hybrid_mm.CheckedDataset', 'CheckedDataset'):
        return dataset
    if 'dataset' in dataset:
        dataset.dataset = _checked(dataset.dataset, skip)
    elif 'datasets' in dataset:
        dataset.datasets = [_checked(child, skip) for child in dataset.datasets]
    else:
        checked = dict(type='hybrid_mm.CheckedDataset', skip_bad_samples=skip, dataset=dataset)
        return ConfigDict(checked)
    return dataset


@contextmanager
def testing_amp(runner: Runner, dtype: str | None) -> Iterator[None]:
    """Context in which a test runs, for ``--amp [dtype]``.

    Raises:
        UserError: float16 on CPU.
    """
    if dtype is None:
        yield
    elif _amp_dtype(dtype) == 'bfloat16':
        with autocast_features(runner.model):
            yield
    else:
        with torch.autocast('cuda', dtype=torch.float16):
            yield
