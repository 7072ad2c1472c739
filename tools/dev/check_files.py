#!/usr/bin/env python
"""Check text files, for `pre-commit` or by hand.

    python tools/dev/check_files.py FILE [FILE ...]

Reported are trailing blanks, no or several newlines at the end of a file, Windows' line ends, marks
of an unfinished merge, and files of more than 1 MB. Exit status 1 if there are any.
"""

import argparse
import re
import sys
from pathlib import Path

LARGE = 1 << 20
PROBLEMS = (
    (re.compile(rb'\r\n'), "Windows' end of line"),
    (re.compile(rb'[ \t]+$', re.MULTILINE), 'blanks at the end of the line'),
    (re.compile(rb'^(<{7} |>{7} |={7}$)', re.MULTILINE), 'mark of a merge'),
    (re.compile(rb'\n\n+\Z|[^\n]\Z'), 'the file must end with exactly one end of line'),
)


def problems(path: Path) -> list[str]:
    """Problems of a file, one line each."""
    data = path.read_bytes()
    found = [f'{path}: {len(data)} bytes, more than {LARGE}'] if len(data) > LARGE else []
    if b'\0' in data[:8192]:
        return found
    for pattern, what in PROBLEMS:
        match = pattern.search(data)
        if match:
            found.append(f'{path}:{data.count(bytes([10]), 0, match.start()) + 1}: {what}')
    return found


def main(argv: list[str] | None = None) -> int:
    """Print the problems of files; exit status 1 if there are any."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('files', nargs='+', type=Path, metavar='FILE', help='files to check')
    args = parser.parse_args(argv)
    found = [line for path in args.files if path.is_file() for line in problems(path)]
    print(*found, sep='\n' if found else '', end='\n' if found else '')
    return int(bool(found))


if __name__ == '__main__':
    sys.exit(main())
