"""Export a detector, segmenter or classifier to one ONNX file, from the image to the result.

python tools/export_onnx.py CONFIG [CHECKPOINT] OUT.onnx --check
python tools/export_onnx.py CONFIG [CHECKPOINT] OUT.onnx --fixed --size 512 512 --input float
python tools/export_onnx.py CONFIG [CHECKPOINT] OUT.onnx --backbone-only
python tools/export_onnx.py --table docs/export.md --only 'VAN*'
python tools/export_onnx.py --times docs/export.md --no-compile --fixed --jobs 2

The input is `image`, uint8 (N, H, W, C) in the order red, green, blue, of any height and width;
normalisation and padding are in the file. Outputs:
  detection       boxes (N, K, 4), scores (N, K), labels (N, K) and, if the model has them, masks
  segmentation    label_map (N, H, W), and with --probabilities probabilities (N, classes, H, W);
                  at the size of the image, or of the input `size` (height, width)
  classification  scores (N, classes)
With --raw and --backbone-only the input is prepared as by the test pipeline, (N, C, H, W), and the
outputs are those of the network, not decoded:
  backbone        map_0, map_1, ... at strides 4, 8, 16, 32
  segmentation    logits (N, classes, H / 4, W / 4) of most heads, not resized
  classification  cls_score (N, classes)
  RetinaNet etc.  cls_score_i, bbox_pred_i of every level
  Mask R-CNN      OUT.onnx: pyramid_i, rpn_cls_score_i, rpn_bbox_pred_i, and OUT_rois.onnx, from
                  rois (n, 5) and pyramid_i to cls_score, bbox_pred, mask_logits
The file's metadata say the rest. docs/export.md lists what can be exported.
"""

import argparse
import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags; ``files`` holds a config and a new file, or nothing (--table, --times)."""
    parser = options.parser(__doc__)
    parser.add_argument(
        'files', nargs='*', metavar='CONFIG [CHECKPOINT] OUT.onnx', help='config, weights, new file'
    )
    parser.add_argument('--raw', action='store_true', help='outputs of the network, not decoded')
    parser.add_argument('--backbone-only', action='store_true', help='the backbone of the model')
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='of the image with --fixed, else of the example (default: as in the test pipeline)',
    )
    parser.add_argument(
        '--fixed', action='store_true', help='one height and width, which may run faster'
    )
    parser.add_argument('--dynamic', action='store_true', help='any height and width: the default')
    parser.add_argument('--batch', type=int, help='number of images (default: any; 1 of raw files)')
    parser.add_argument(
        '--input',
        choices=('uint8', 'float'),
        help='uint8 (N, H, W, C), the default, or float (N, C, H, W), that of models with '
        'LoadMultichannelImage; both from 0 to 255, of those models in the values of the files',
    )
    parser.add_argument(
        '--probabilities', action='store_true', help='of segmenters: a second output'
    )
    parser.add_argument(
        '--check', action='store_true', help='compare the file with PyTorch, and fail if it differs'
    )
    parser.add_argument(
        '--table', metavar='FILE', type=Path, help='export one of each family with every head'
    )
    parser.add_argument(
        '--times', metavar='FILE', type=Path, help='measure the smallest network of each family'
    )
    parser.add_argument('--only', metavar='PATTERN', default='*', help='rows of the table')
    parser.add_argument(
        '--columns', nargs='+', metavar='TITLE', help='columns of --table (default: all)'
    )
    parser.add_argument('--missing', action='store_true', help='only cells that are not there yet')
    parser.add_argument(
        '--no-compile', action='store_true', help='of --times: leave torch.compile out'
    )
    parser.add_argument(
        '--jobs', type=int, default=1, help='rows at the same time, of one thread each (default: 1)'
    )
    options.add_config_options(parser)
    args = parser.parse_args(argv)
    if args.table or args.times:
        if args.files or (args.table and args.times):
            parser.error('--table and --times take no config, and exclude each other')
        if args.jobs < 1:
            parser.error(f'--jobs must be positive, got {args.jobs}')
        return args
    if len(args.files) not in (2, 3) or not args.files[-1].endswith('.onnx'):
        parser.error('expected CONFIG [CHECKPOINT] OUT.onnx')
    if min([*(args.size or ()), 1 if args.batch is None else args.batch]) < 1:
        parser.error(f'--size and --batch must be positive, got {args.size} and {args.batch}')
    if args.fixed and args.dynamic:
        parser.error('--fixed and --dynamic exclude each other')
    if (args.raw or args.backbone_only) and (args.input or args.probabilities):
        parser.error('--input and --probabilities are of files with results, not of raw ones')
    return args


@tool
def main(argv: list[str] | None = None) -> None:
    """Write the file or files of a model and print their inputs and outputs, or write a table."""
    args = parse_args(argv)

    from hybrid_mm.commands.export_onnx import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
