r"""Compare models in one table: size, multiply-adds, time, memory and metrics.

python tools/analysis/compare.py A.py B.py mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py
python tools/analysis/compare.py A.py B.py --shape 320 320 --batch 2 --rounds 10 --amp
python tools/analysis/compare.py A.py B.py --logs work_dirs/a work_dirs/b --out DIR
python tools/analysis/compare.py A.py B.py --checkpoints a.pth b.pth --test
python tools/analysis/compare.py "dict(type='hybrid_mm.NAT', arch='mini')" \
    "dict(type='mmdet.SwinTransformer')" --shape 224 224

Models are configs of any OpenMMLab package (detectors, segmenters, classifiers), or dicts of
backbones. All get the same images: noise, or --image, at --shape, which is by default the usual
size for the task of the first model. The models take turns in every round, each time in another
order, so that all share the load of the machine fairly; times are medians over the rounds. Metrics
are those of the last validation in the work dirs of --logs, or of --test with the --checkpoints.

Written to DIR after every model and every round: comparison.csv, comparison.md, comparison.json and
comparison.png. If a model fails, its error is shown below the table, the others continue, and the
exit status is 1.
"""

import os
import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int | None:
    """Print the table; write it to the output folder in several forms."""
    parser = options.parser(__doc__)
    parser.add_argument('models', nargs='+', help="config, or dict(type='...', ...) of a backbone")
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('comparison'),
        metavar='DIR',
        help='folder of the results (default: comparison)',
    )
    options.add_weights_and_labels(parser)
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help='side, or height and width, of the images of all models (default: 800 1280 for '
        'detection, 512 512 for segmentation, 224 224 otherwise)',
    )
    parser.add_argument(
        '--own-size',
        action='store_true',
        help="give each model the size of its config's test instead of one size for all",
    )
    parser.add_argument('--image', metavar='FILE', help='picture that all see (default: noise)')
    parser.add_argument('--batch', type=int, default=2, help='images in a batch (default: 2)')
    parser.add_argument(
        '--rounds',
        type=int,
        help='rounds of measurement after one to warm up; 0 to count only (default: 7, on a GPU '
        '30)',
    )
    parser.add_argument('--forward-only', action='store_true', help='measure no training steps')
    parser.add_argument('--device', help='e.g. cpu, cuda:0 (default: a GPU if there is one)')
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=('auto', *options.AMP_DTYPES),
        help='mixed precision, by default float16 on a GPU and bfloat16 on a CPU',
    )
    parser.add_argument(
        '--logs',
        nargs='+',
        metavar='DIR',
        help="metrics, one per model: work dir, log, or the metrics of a test, or '-' for none",
    )
    parser.add_argument(
        '--pick',
        choices=('last', 'best'),
        default='last',
        help='validation of --logs whose metrics are taken (default: last)',
    )
    parser.add_argument(
        '--test',
        action='store_true',
        help='test the --checkpoints on the test sets of the configs, as tools/test.py does',
    )
    parser.add_argument(
        '--metrics',
        nargs='+',
        metavar='NAME',
        help='metrics to show, the first one in the plot (default: mAP, mIoU or top-1)',
    )
    options.add_config_options(parser)
    args = parser.parse_args(argv)
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 16):
        parser.error(f'--shape: expected one or two numbers of at least 16, got {args.shape}')
    if args.shape and args.own_size:
        parser.error('--shape and --own-size exclude each other')
    if args.batch < 1 or (args.rounds is not None and args.rounds < 0):
        parser.error('--batch must be at least 1 and --rounds at least 0')
    if args.test and args.logs:
        parser.error('--test and --logs both give the metrics; leave one of them out')
    if args.metrics and not (args.logs or args.test):
        parser.error('--metrics needs --logs or --test, which give the metrics')
    if args.test and not set(args.checkpoints or ()) - {'-'}:
        parser.error('--test needs --checkpoints, one per model')

    # what its profiler says of memory from before a trace; torch reads this when it is imported
    os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')
    from hybrid_mm.commands.compare import run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
