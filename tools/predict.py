"""Predict on images, folders of images and videos; write pictures and JSON.

python tools/predict.py configs/demo/... work_dirs/try/epoch_12.pth photos/ --out predictions
python tools/predict.py configs/nat/... auto photos/ --out predictions
python tools/predict.py model.onnx photos/ --out predictions  (of tools/export_onnx.py)

DIR/pictures/ and DIR/videos/ hold the drawn predictions, DIR/label_maps/ those of a segmenter, and
DIR/predictions.json a list. sub/x.jpg gets pictures/sub/x.png; if there is a sub/x.bmp as well,
they get sub/x.jpg.png and sub/x.bmp.png. Entries name the files (picture, video, label_map):
  detection       one entry per object, as in COCO results: image_id (position of the image in the
                  sorted folder), file_name, category_id (label, from 0), category_name, bbox
                  [x, y, width, height] in pixels, score, segmentation (RLE) if the model has masks;
                  with --annotations the ids are those of that file, and pycocotools can evaluate
  segmentation    one entry per image: file_name, label_map (PNG in DIR/label_maps/), shares
                  (fraction of the pixels, by class name)
  classification  one entry per image: file_name, top5 (class name and score)
Entries of a video also have the number of the frame. From Python: hybrid_mm.apis.Predictor.

Inputs that cannot be read, prepared or predicted on are reported and skipped; the exit status is
then 1. Results that are complete when Ctrl-C or an error ends the run are kept.
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> int:
    """Predict on all inputs; write the results and report unreadable inputs."""
    parser = options.parser(__doc__)
    parser.add_argument('config', help='config file, or model.onnx, which needs no checkpoint')
    if not options.names_onnx(argv):
        parser.add_argument('checkpoint', help=options.CHECKPOINT)
    parser.add_argument(
        'images', nargs='+', help='images, videos, or folders of images (searched recursively)'
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the results')
    parser.add_argument('--device', help='e.g. cpu, cuda:0 (default: a GPU if there is one)')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='lowest score of an object (default: 0.3)'
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images at once (default: 1)')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--annotations', metavar='FILE', help='COCO file whose ids the results of a detector get'
    )
    parser.add_argument(
        '--force', action='store_true', help='replace the results that are in the folder'
    )
    options.add_config_options(parser)
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        parser.error(f'--batch-size must be at least 1, got {args.batch_size}')
    if not args.score_thr <= 1:
        parser.error(f'--score-thr must be a number up to 1, got {args.score_thr}')

    from hybrid_mm.commands.predict import run

    return run(args)


if __name__ == '__main__':
    sys.exit(main())
