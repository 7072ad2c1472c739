"""Quantise an ONNX file to 8 bits, and compare it with the original.

python tools/quantize_onnx.py model.onnx int8.onnx photos/
python tools/quantize_onnx.py model.onnx int8.onnx photos/ --dynamic
python tools/test.py int8.onnx --config CONFIG

The file is one that tools/export_onnx.py wrote. Images go through its test pipeline: on some, the
ranges of the activations are measured, on others both files are compared. A few dozen that are
typical of the application suffice; annotations are not needed. Convolutions and linear layers are
quantised, but not the first convolution, the last layers and anything else. With --dynamic only
linear layers are, and ranges are measured in every run: slower, but safe where activations vary.
"""

import argparse
import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags of quantize_onnx.py."""
    parser = options.parser(__doc__)
    parser.add_argument('model', help='ONNX file of tools/export_onnx.py')
    parser.add_argument('output', help='file to write (.onnx)')
    parser.add_argument('images', nargs='+', help='images, or folders of images')
    parser.add_argument(
        '--number', type=int, default=32, help='images to measure ranges on (default: 32)'
    )
    parser.add_argument(
        '--dynamic', action='store_true', help='linear layers only, ranges measured in every run'
    )
    parser.add_argument(
        '--reduce-range',
        action='store_true',
        help='weights of 7 bits: for processors without VNNI (AVX2, AVX-512 before 2019)',
    )
    args = parser.parse_args(argv)
    if args.number < 1:
        parser.error(f'--number must be positive, got {args.number}')
    return args


@tool
def main(argv: list[str] | None = None) -> None:
    """Write the quantised file; print its size, time and agreement with the file in float."""
    args = parse_args(argv)

    from hybrid_mm.commands.quantize_onnx import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
