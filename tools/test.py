"""Evaluate a checkpoint of a detector, segmenter or classifier.

python tools/test.py configs/demo/... work_dirs/try/iter_1000.pth --show-dir pictures
python tools/test.py configs/nat/... auto
python tools/test.py model.onnx --config configs/demo/...  (of tools/export_onnx.py)
"""

import argparse
import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags of test.py."""
    parser = options.parser(__doc__)
    onnx = options.names_onnx(argv)
    if onnx:
        parser.add_argument('files', nargs='+', metavar='model.onnx', help='file in ONNX')
    else:
        parser.add_argument('config', help='config file; none before model.onnx')
        parser.add_argument('checkpoint', help=options.CHECKPOINT + '; or model.onnx, alone')
    parser.add_argument(
        '--config',
        dest='config' if onnx else 'data_config',
        help='config of the data set and the metrics for a model.onnx',
    )
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
    if not onnx and args.data_config:
        parser.error('--config is for a model.onnx; name the config first, then the checkpoint')
    if onnx:
        args.checkpoint = args.files[-1]
        if len(args.files) > 1 or not args.config:
            parser.error('a model in ONNX is tested by: tools/test.py model.onnx --config CONFIG')
        if args.amp or args.tta:
            parser.error('--amp and --tta change what the network computes; a model.onnx is fixed')
    return args


@tool
def main(argv: list[str] | None = None) -> None:
    """Print the metrics of a checkpoint; write predictions and drawings as the flags demand."""
    args = parse_args(argv)

    from hybrid_mm.commands.test import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
