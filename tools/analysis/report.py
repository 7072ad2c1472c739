"""Collect results of the analyses in one self-contained HTML page.

python tools/analysis/report.py robustness/van-b0 robustness/van-lska-b0 erf/ --out report.html

Folders are searched for results of robustness.py, receptive_field.py, shape_texture.py,
texture_knn.py, kernel_size.py and compare.py; several models of one study are shown side by side.
"""

import sys
from pathlib import Path

from hybrid_mm.run import options
from hybrid_mm.run.tool import tool


@tool
def main(argv: list[str] | None = None) -> None:
    """Write the page; print its size and the number of results per study."""
    parser = options.parser(__doc__)
    parser.add_argument('folders', nargs='+', help='folders of results')
    parser.add_argument('--out', required=True, type=Path, metavar='FILE', help='HTML file')
    parser.add_argument(
        '--title', default='Robustness and analysis', help='of the page (default: %(default)s)'
    )
    args = parser.parse_args(argv)

    from hybrid_mm.commands.report import run

    run(args)


if __name__ == '__main__':
    sys.exit(main())
