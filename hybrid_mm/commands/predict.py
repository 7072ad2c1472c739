"""What ``tools/predict.py`` does once its arguments are read."""

import argparse
import sys
import traceback

from hybrid_mm.apis import Predictor, Writer
from hybrid_mm.apis.sources import count_sources, list_files
from hybrid_mm.errors import UserError, shorten
from hybrid_mm.run import interrupt
from hybrid_mm.run.config import load_config
from hybrid_mm.run.console import progress, wrote
from hybrid_mm.run.onnx_file import is_onnx
from hybrid_mm.run.quiet import quietly


@quietly
def run(args: argparse.Namespace) -> int:
    """Predict on all inputs, write the results and report unreadable inputs; the exit status."""
    for name in args.images:
        if is_onnx(name):
            raise UserError(f'{name} contains config and weights: name it alone, before the images')
    files = list_files(args.images, args.out)
    total = count_sources(files)
    settings = dict(device=args.device, batch_size=args.batch_size, tta=args.tta)
    if is_onnx(args.config):
        predictor = Predictor(args.config, options=args.cfg_options, **settings)
    else:
        cfg = load_config(args.config, args.cfg_options)
        predictor = Predictor(cfg, args.checkpoint, **settings)
    broken, done = [], 0

    def describe(standing: interrupt.Standing, command: str) -> str:
        again = command if args.force else f'{command} --force'
        return (
            f'interrupted: {done} of {total} images done; results in {args.out}; start again with: '
            f'{again}'
        )

    with (
        interrupt.interruptible(describe, args.argv),
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

        for prediction in predictor.stream(files, on_error=skip):
            writer.add(prediction)
            done += 1
            advance()
    number = f'{done} of {done + len(broken)}' if broken else str(done)
    wrote(args.out, f'{", ".join(writer.places)} of {number} images')
    if broken:
        print(f'{len(broken)} skipped: {shorten(broken)}', file=sys.stderr)
    return 1 if broken else 0
