"""Convert an official checkpoint to the layout of this package.

python tools/convert_checkpoint.py van_b0.pth.tar van_b0.pth
"""

import os
import sys

from hybrid_mm.errors import UserError, nearest, plain_text
from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv=None):
    """Run the tool."""
    import hybrid_mm.convert as converters

    sources = ', '.join(sorted(converters.SOURCES))
    parser = options.parser(__doc__)
    parser.add_argument('input', help='official checkpoint (.pth, .pth.tar, .safetensors)')
    parser.add_argument('output', help='file to write (.pth)')
    parser.add_argument('--source', help=f'layout of the input, found by its keys: {sources}')
    args = parser.parse_args(argv)

    import torch

    if args.source is not None and args.source not in converters.SOURCES:
        hint = nearest(args.source, converters.SOURCES) or f'; there are {sources}'
        raise UserError(f'--source {args.source} is unknown{hint}')
    loaded = _read(args.input)
    try:
        state = converters.unwrap(loaded)
        source = args.source or converters.detect(state)
        if source is None:
            raise ValueError(
                f'no source has such keys ({", ".join(list(state)[:3])}, ...): it is in our layout '
                f'already, or of an unknown source; known are {sources}'
            )
        converted = converters.convert(state, source)
    except (KeyError, ValueError) as error:
        raise UserError(f'{args.input}: {plain_text(error)}') from error
    os.makedirs(os.path.dirname(args.output) or '.', exist_ok=True)
    torch.save(dict(state_dict=converted, meta=dict(source=source)), args.output)
    numbers = sum(tensor.numel() for tensor in converted.values())
    print(f'{args.output}: {len(converted)} tensors, {numbers:,} numbers, from layout {source}')


def _read(path: str) -> dict:
    if not path.endswith('.safetensors'):
        from hybrid_mm.checkpoints import read_checkpoint

        return read_checkpoint(path)
    from hybrid_mm.checkpoints import check_checkpoint_path

    check_checkpoint_path(path)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise UserError(
            f'{path}: reading it needs the package safetensors; pip install safetensors'
        ) from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f'{path} cannot be read: {error}') from error


if __name__ == '__main__':
    sys.exit(main())
