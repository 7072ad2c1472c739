"""Train a detector, segmenter or classifier, whichever the config describes.

python tools/train.py configs/demo/... --work-dir work_dirs/try --amp
python tools/train.py configs/demo/... --dry-run      # one step: memory, time, estimate of the run
"""

import argparse
import sys
from contextlib import nullcontext

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from hybrid_mm.run import dry_run, interrupt, launch, options, quiet, resume
from hybrid_mm.run.checks import data, settings
from hybrid_mm.run.config import without_init_cfg
from hybrid_mm.run.tool import debugging, tool


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags of train.py."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file')
    options.add_run_options(parser)
    parser.add_argument(
        '--no-amp', action='store_true', help='float32, also where the config has mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size (auto_scale_lr of the config)',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint, or from the newest good one of the work dir',
    )
    parser.add_argument('--no-validate', action='store_true', help='train without validation')
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='build everything, take one step on one batch and predict one validation batch; print '
        'parameters, FLOPs, memory, times and the estimated duration; save nothing',
    )
    options.add_tracking_options(parser)
    return parser.parse_args(argv)


@tool
def main(argv: list[str] | None = None) -> None:
    """Train into the work dir; with --dry-run print a table instead."""
    args = parse_args(argv)
    describe = interrupt.dry_running if args.dry_run else interrupt.training
    with quiet.terminal(args.verbose or debugging(argv)), interrupt.interruptible(describe, argv):
        run(args)


def run(args: argparse.Namespace) -> None:
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
    from hybrid_mm.analysis.complexity import complexity  # takes a second

    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(without_init_cfg(cfg.model))
    try:
        return complexity(model, result.shape[1:])[1]
    except (RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        result.notes.append(f'FLOPs: {type(error).__name__}: {error}')
        return None


if __name__ == '__main__':
    sys.exit(main())
