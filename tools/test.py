"""Evaluate a checkpoint of a detector, segmenter or classifier.

python tools/test.py configs/demo/... work_dirs/try/iter_1000.pth --show-dir pictures
"""

import argparse
import sys
from pathlib import Path

import mmengine
from mmengine.config import Config
from mmengine.evaluator import DumpResults

from hybrid_mm.checkpoints import read_checkpoint
from hybrid_mm.errors import UserError
from hybrid_mm.run import launch, options
from hybrid_mm.run.checks import data
from hybrid_mm.run.config import task_of
from hybrid_mm.run.tool import tool


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags of test.py."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    options.add_run_options(parser)
    parser.add_argument(
        '--out',
        help='detection and classification: file.pkl of the predictions; segmentation: folder '
        'of the predicted label maps; with --out-item metrics: file.json of the metrics',
    )
    parser.add_argument(
        '--out-item', choices=('metrics', 'pred'), help='what --out holds (default: pred)'
    )
    parser.add_argument('--show', action='store_true', help='show predictions in windows')
    parser.add_argument(
        '--show-dir',
        help='folder of drawn predictions (detection: inside WORK_DIR/TIMESTAMP)',
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that a window stays (default: 2)'
    )
    parser.add_argument('--interval', type=int, help='draw every INTERVAL-th sample')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    options.add_tracking_options(parser)
    args = parser.parse_args(argv)
    if args.out_item and not args.out:
        parser.error('--out-item needs --out')
    return args


@tool
def main(argv: list[str] | None = None) -> None:
    """Print the metrics of a checkpoint; write predictions and drawings as the flags demand."""
    args = parse_args(argv)
    read_checkpoint(args.checkpoint)  # before anything that takes time
    cfg = launch.config_of_run(args)

    launch.set_tracking(cfg, args.tensorboard, args.wandb)
    if args.show or args.show_dir:
        launch.set_visualization(cfg, args.show, args.show_dir, args.wait_time, args.interval)
    if args.tta:
        launch.set_test_time_augmentation(cfg)
    keeps_predictions = args.out and args.out_item != 'metrics'
    dump = set_output(cfg, args.out) if keeps_predictions else None
    data.check_testing(cfg)

    runner = launch.testing_runner(cfg, args.checkpoint)
    if dump is not None:
        runner.test_evaluator.metrics.append(dump)
    with launch.testing_amp(runner, args.amp):
        metrics = runner.test()
    if args.out_item == 'metrics' and runner.rank == 0:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        mmengine.dump(metrics, args.out)


def set_output(cfg: Config, path: str) -> DumpResults | None:
    """Keep the predictions: label maps by the evaluator of a segmenter, else by a further metric.

    Raises:
        UserError: The file of the predictions of a detector or classifier is not a pickle.
    """
    task = task_of(cfg)
    if task == 'segmentation':
        cfg.test_evaluator.update(output_dir=path, keep_results=True)
        return None
    if not path.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out of predictions must end with .pkl or .pickle, got {path}')
    if task == 'detection':
        from mmdet.evaluation import DumpDetResults  # takes seconds, and only a detector needs it

        return DumpDetResults(out_file_path=path)
    return DumpResults(out_file_path=path)


if __name__ == '__main__':
    sys.exit(main())
