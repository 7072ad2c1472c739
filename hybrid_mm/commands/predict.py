"""What ``tools/predict.py`` does once its arguments are read."""

import argparse
import sys
import traceback

from hybrid_mm.apis import Predictor, Writer
from hybrid_mm.apis.sources import count_sources, list_files
from hybrid_mm.errors import shorten
from hybrid_mm.run.config import load_config
from hybrid_mm.run.console import progress


def run(args: argparse.Namespace) -> int:
    """Predict on all inputs; write the results and report unreadable inputs."""
    files = list_files(args.images, args.out)
    total = count_sources(files)
    cfg = load_config(args.config, args.cfg_options)
    predictor = Predictor(cfg, args.checkpoint, args.device, args.batch_size, args.tta)
    broken, done = [], 0

    with (
        Writer(predictor, args.out, args.score_thr, args.annotations, args.force) as writer,
        progress('images', total) as advance,
    ):
        writer.announce(file.name for file in files)

        def skip(name, error):
            broken.append(name)
            print(f'skipped: {error}', file=sys.stderr)
            if args.debug:
                traceback.print_exception(error)
            advance()

        try:
            for prediction in predictor.stream(files, on_error=skip):
                writer.add(prediction)
                done += 1
                advance()
        except KeyboardInterrupt:
            print(f'stopped: {done} of {total} images done; results in {args.out}', file=sys.stderr)
            return 130
    wrote = ', '.join(writer.places)
    print(f'{done} of {done + len(broken)} images done; wrote {wrote} in {args.out}')
    if broken:
        print(f'{len(broken)} skipped: {shorten(broken)}', file=sys.stderr)
    return 1 if broken else 0
