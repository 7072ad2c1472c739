"""Predict on an image or a folder of images; write pictures and JSON.

python tools/predict.py configs/demo/... work_dirs/try/epoch_12.pth photos/ --out predictions

DIR/pictures/ holds the drawn predictions and DIR/predictions.json a list:
  detection       one entry per object, as in COCO results: image_id (position of the image in the
                  sorted folder), file_name, category_id (label, from 0), category_name, bbox
                  [x, y, width, height] in pixels, score, segmentation (RLE) if the model has masks
  segmentation    one entry per image: file_name, label_map (PNG in DIR/label_maps/), shares
                  (fraction of the pixels, by class name)
  classification  one entry per image: file_name, top5 (class name and score)
"""

import sys
from pathlib import Path

from hybrid_mm.engine import cli


@cli.tool
def main(argv=None):
    """Run the tool."""
    parser = cli.parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('images', help='image, or folder of images (searched recursively)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the results')
    parser.add_argument('--device', help='e.g. cpu, cuda:0 (default: a GPU if there is one)')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='lowest score of an object (default: 0.3)'
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images at once (default: 1)')
    cli.add_config_options(parser)
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        parser.error(f'--batch-size must be at least 1, got {args.batch_size}')

    from hybrid_mm.engine.prediction import Predictor, Writer
    from hybrid_mm.engine.progress import track

    files = cli.find_images(args.images)
    cfg = cli.load_config(args.config, args.cfg_options)
    predictor = Predictor(cfg, args.checkpoint, args.device)
    root = Path(args.images)
    writer = Writer(predictor, args.out, root if root.is_dir() else root.parent, args.score_thr)

    broken, batch = [], []
    for index, file in enumerate(track(files, 'images')):
        try:
            batch.append((index, file, predictor.load(file)))
        except Exception as error:  # whatever a decoder raises; the others are done all the same
            broken.append(file)
            reason = str(error).split('\n')[0] or type(error).__name__
            print(f'skipped {file}: cannot be read ({reason})', file=sys.stderr)
        if batch and (len(batch) == args.batch_size or index == len(files) - 1):
            samples = predictor.predict([data for _, _, data in batch])
            for (number, path, _), sample in zip(batch, samples, strict=True):
                writer.add(number, path, sample)
            batch = []
    writer.close()
    print(f'{len(files) - len(broken)} of {len(files)} images done; results in {args.out}')
    if broken:
        print(f'{len(broken)} skipped: {", ".join(map(str, broken[:5]))}', file=sys.stderr)
    return 1 if broken else 0


if __name__ == '__main__':
    sys.exit(main())
