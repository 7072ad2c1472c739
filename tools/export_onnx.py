"""Export a backbone, segmenter, classifier or detector to ONNX, and compare it with onnxruntime.

python tools/export_onnx.py CONFIG [CHECKPOINT] OUT.onnx --check
python tools/export_onnx.py CONFIG [CHECKPOINT] OUT.onnx --size 512 512 --dynamic --backbone-only
python tools/export_onnx.py --table docs/export.md --only 'VAN*'

The input is `image`, (N, 3, H, W), prepared as by the test pipeline; the file's metadata contain
mean and std, the order of the channels and the classes. Outputs are raw:
  backbone        map_0, map_1, ... at strides 4, 8, 16, 32
  segmentation    logits (N, classes, H / 4, W / 4) of most heads, not resized; with out_channels=1
                  one channel: class 1 where its sigmoid exceeds the metadata's threshold
  classification  cls_score (N, classes)
  RetinaNet etc.  cls_score_i, bbox_pred_i of every level, not decoded
  Mask R-CNN      OUT.onnx: pyramid_i, rpn_cls_score_i, rpn_bbox_pred_i, and OUT_rois.onnx, from
                  rois (n, 5) and pyramid_i to cls_score, bbox_pred, mask_logits
docs/export.md lists what can be exported.
"""

import argparse
import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags of export_onnx.py; ``files`` holds a config and a new file, or nothing (--table)."""
    parser = options.parser(__doc__)
    parser.add_argument(
        'files', nargs='*', metavar='CONFIG [CHECKPOINT] OUT.onnx', help='config, weights, new file'
    )
    parser.add_argument('--backbone-only', action='store_true', help='the backbone of the model')
    parser.add_argument('--dynamic', action='store_true', help='leave height and width open')
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='of the image (default: as in the test pipeline); with --dynamic near what is traced',
    )
    parser.add_argument('--batch', type=int, default=1, help='images (default: 1)')
    parser.add_argument(
        '--check', action='store_true', help='compare the file with PyTorch, and fail if it differs'
    )
    parser.add_argument('--table', metavar='FILE', type=Path, help='export one of each family')
    parser.add_argument('--only', metavar='PATTERN', default='*', help='rows of the table')
    options.add_config_options(parser)
    args = parser.parse_args(argv)
    if args.table:
        if args.files:
            parser.error('--table takes no config')
        return args
    if len(args.files) not in (2, 3) or not args.files[-1].endswith('.onnx'):
        parser.error('expected CONFIG [CHECKPOINT] OUT.onnx')
    if min([*(args.size or ()), args.batch]) < 1:
        parser.error(f'--size and --batch must be positive, got {args.size} and {args.batch}')
    return args


@tool
def main(argv: list[str] | None = None) -> None:
    """Write the file or files of a model and print their inputs and outputs, or write the table."""
    args = parse_args(argv)

    from hybrid_mm.commands.export_onnx import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
