#!/usr/bin/env python
"""Draw what the operators of the papers do: docs/images/papers/*.svg.

    python tools/dev/draw_papers.py             # write all
    python tools/dev/draw_papers.py --check     # only list those that are out of date (status 1)

Every function in tools/dev/drawings/ that returns a `Drawing` is one of them. In maps of pixels,
orange is the pixel (or pixels) whose result is computed, teal those that it depends on, darker for
more influence. Boxes are the data flow, from left to right. Every drawing has a background, so that
it is readable on dark and light pages.
"""

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from drawings import large_kernels, transformers, whole_map, windows
from drawings.canvas import Drawing

FOLDER = Path(__file__).resolve().parents[2] / 'docs/images/papers'


def drawings() -> dict[str, Callable[[], Drawing]]:
    """Functions of the drawings by name."""
    return {
        name: function
        for module in (large_kernels, windows, whole_map, transformers)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
    }


def main(argv: list[str] | None = None) -> int:
    """Write or check the drawings; exit status 1 if a checked one is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='write nothing')
    check = parser.parse_args(argv).check
    stale = 0
    for name, draw in drawings().items():
        file, text = FOLDER / f'{name}.svg', draw().svg()
        if file.exists() and file.read_text() == text:
            continue
        stale += 1
        if not check:
            FOLDER.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        print('out of date:' if check else 'wrote', file.name)
    return int(check and stale > 0)


if __name__ == '__main__':
    sys.exit(main())
