"""What ``tools/train.py`` does once its arguments are read."""

import argparse
from contextlib import nullcontext

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.run import dry_run, interrupt, launch, quiet, resume
from hybrid_mm.run.checks import data, settings
from hybrid_mm.run.config import without_init_cfg


def run(args: argparse.Namespace) -> None:
    """Train into the work dir; with --dry-run print a table instead."""
    describe = interrupt.dry_running if args.dry_run else interrupt.training
    with quiet.terminal(args), interrupt.interruptible(describe, args.argv):
        train(args)


def train(args: argparse.Namespace) -> None:
    """Train with the flags of the command line."""
    cfg = launch.config_of_run(args)
    settings.check_settings(cfg)

    launch.set_training_amp(cfg, args.amp, args.no_amp)
    if args.auto_scale_lr:
        launch.set_auto_scale_lr(cfg)
    if args.no_validate:
        launch.disable_validation(cfg)
    launch.set_atomic_checkpoints(cfg)
    with nullcontext() if args.dry_run else launch.training_lock(cfg):
        resumed = resume.set_resume(cfg, args.resume)
        launch.set_exact_resume(cfg)
        launch.set_tracking(cfg, args.tensorboard, args.wandb)
        data.check_training(cfg, resumed is not None)

        if args.dry_run:
            result = dry_run.dry_run(cfg, resumed)
            dry_run.show(result, count_macs(cfg, result))
        else:
            launch.training_runner(cfg, resumed).train()


def count_macs(cfg: Config, result: dry_run.DryRun) -> int | None:
    """Multiply-adds for one image of the batch of a dry run; None, and a note, without a count."""
    if not result.shape:
        return None

    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(without_init_cfg(cfg.model))
    try:
        return complexity(model, result.shape[1:])[1]
    except (RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        result.notes.append(f'FLOPs: {type(error).__name__}: {error}')
        return None
