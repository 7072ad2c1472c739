"""What ``tools/convert_checkpoint.py`` does once its arguments are read."""

import argparse

import torch

from hybrid_mm.checkpoints import read_checkpoint, weights_of
from hybrid_mm.convert import SOURCES, convert, detect
from hybrid_mm.errors import UserError, nearest, plain_text
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_file, replacing
from hybrid_mm.run.quiet import quietly
from hybrid_mm.weights.registry import OURS, SCHEME


@quietly
def run(args: argparse.Namespace) -> None:
    """Write the converted weights, and print the layout that was found and what was written."""
    sources = ', '.join(sorted(SOURCES))
    if args.source is not None and args.source not in SOURCES:
        hint = nearest(args.source, SOURCES) or f'; there are {sources}'
        raise UserError(f'--source {args.source} is unknown{hint}')

    check_output_file(args.output, 'output', inputs=[args.input])
    checkpoint = read_checkpoint(args.input)
    state = weights_of(checkpoint, args.input, args.key)
    try:
        by_name = args.input.startswith(SCHEME)  # converted when it is loaded
        source = checkpoint['meta']['source'] or OURS if by_name else args.source or detect(state)
        if source is None:
            raise ValueError(
                f'no known layout has such names: {", ".join(list(state)[:3])}, ...: the file is '
                f'already in our layout, or in an unknown one; known are {sources}'
            )
        converted = state if by_name else convert(state, source)
    except (KeyError, ValueError) as error:
        raise UserError(f'{args.input}: {plain_text(error)}') from error
    with replacing(args.output) as path:
        torch.save(dict(state_dict=converted, meta=dict(source=source)), path)
    numbers = sum(tensor.numel() for tensor in converted.values())
    wrote(args.output, f'{len(converted)} tensors, {numbers:,} numbers, from layout {source}')
