"""Prepare a checkpoint for sharing: weights only, with a hash in its name.

python tools/publish_model.py work_dirs/try/epoch_12.pth van-lska-tiny.pth
writes van-lska-tiny-1a2b3c4d.pth, with the first 8 digits of its SHA-256.

Optimizer, schedulers, message hub and the averaged copy of the weights are dropped (where weights
were averaged, the averages are the ones kept). The result loads with
torch.load(..., weights_only=True).
"""

import sys

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Write the file to publish, and print its name and sizes."""
    parser = options.parser(__doc__)
    parser.add_argument('input', help='checkpoint of a training run')
    parser.add_argument('output', help='file to write; NAME.pth becomes NAME-HASH.pth')
    args = parser.parse_args(argv)

    from hybrid_mm.commands.publish_model import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
