"""Evaluate a detector, segmenter or classifier on corrupted images: mPC, rPC and mCE.

python tools/analysis/robustness.py CONFIG CHECKPOINT --out robustness/van-b0
python tools/analysis/robustness.py CONFIG CHECKPOINT --out DIR --corruptions all
python tools/analysis/robustness.py CONFIG CHECKPOINT --out DIR --corruptions fog --severities 3
python tools/analysis/robustness.py CONFIG CHECKPOINT --out DIR --imagenet-c data/imagenet-c
python tools/analysis/robustness.py CONFIG CHECKPOINT --out DIR --imagenet-a data/imagenet-a

The test set of the config is evaluated clean and under each corruption and severity. Results are
written to DIR/robustness.json after every evaluation: an interrupted run is resumed by the same
command. A heat map and curves are drawn as well. tools/analysis/report.py compares several models.

mPC is the mean over corruptions and severities, rPC its ratio to the clean performance: over the 15
corruptions of the benchmark, and over all 19 if they were evaluated. Classifiers also get mCE(15)
and mCE(19). The benchmark for classifiers uses published images (--imagenet-c); corrupting while
loading gives slightly different figures. Images are corrupted in the order of channels in which
they are loaded (BGR), as MMDetection did, unless --to-rgb is given.
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Run the evaluations; print tables and write results and figures to the output folder."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help=options.CHECKPOINT)
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the results')
    parser.add_argument(
        '--corruptions',
        nargs='+',
        default=['benchmark'],
        metavar='NAME',
        help='corruptions, or noise, blur, weather, digital, holdout, benchmark (15), all (19), '
        'none (default: benchmark)',
    )
    parser.add_argument(
        '--severities',
        nargs='+',
        type=int,
        default=[1, 2, 3, 4, 5],
        choices=range(6),
        help='(default: 1 2 3 4 5; 0, clean, is always run)',
    )
    parser.add_argument('--to-rgb', action='store_true', help='corrupt RGB instead of BGR images')
    parser.add_argument('--draw-seed', type=int, default=0, help='seed of the corruptions')
    parser.add_argument('--imagenet-c', metavar='DIR', help='use the published corrupted images')
    for name in ('imagenet-a', 'imagenet-r', 'imagenet-sketch'):
        parser.add_argument(f'--{name}', metavar='DIR', help='evaluate on this data set as well')
    parser.add_argument(
        '--resize',
        action='store_true',
        help='resize and crop the images of --imagenet-c, which have 224 x 224 pixels',
    )
    parser.add_argument('--label', help='name of the model in figures (default: the config)')
    parser.add_argument('--restart', action='store_true', help='forget the results in DIR')
    options.add_run_options(parser)
    args = parser.parse_args(argv)

    from hybrid_mm.commands.robustness import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
