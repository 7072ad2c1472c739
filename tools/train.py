"""Train a detector, segmenter or classifier, whichever the config describes.

python tools/train.py configs/demo/... --work-dir work_dirs/try --amp
"""

import sys

from hybrid_mm.engine import cli, launch, preflight, settings
from hybrid_mm.engine.exact_resume import set_exact_resume


@cli.tool
def main(argv=None):
    """Run the tool."""
    parser = cli.parser(__doc__)
    parser.add_argument('config', help='config file')
    cli.add_run_options(parser)
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
    args = parser.parse_args(argv)

    cfg = launch.config_of_run(args)
    settings.check_settings(cfg)
    launch.set_training_amp(cfg, args.amp)
    if args.auto_scale_lr:
        launch.set_auto_scale_lr(cfg)
    if args.no_validate:
        launch.disable_validation(cfg)
    launch.set_resume(cfg, args.resume)
    set_exact_resume(cfg)
    preflight.check_training(cfg)
    runner = launch.build_runner(cfg)
    settings.check_channels(runner)
    runner.train()


if __name__ == '__main__':
    sys.exit(main())
