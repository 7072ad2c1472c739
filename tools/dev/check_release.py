#!/usr/bin/env python
"""Check that the files of a checkout agree about the version that is to be released.

    python tools/dev/check_release.py            # before the tag is made
    python tools/dev/check_release.py v0.1.0     # the tag, too

Reported are a version of CITATION.cff or of the tag that is not that of hybrid_mm/version.py, a
changelog whose first section is not that version with a date, and files that are not committed.
Exit status 1 if there are any. Needs only the standard library.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def found(root: Path, name: str, pattern: str) -> str:
    """The first group of a pattern at its first place in a file, or ``''``."""
    match = re.search(pattern, (root / name).read_text(encoding='utf-8'), re.MULTILINE)
    return match[1] if match else ''


def problems(root: Path, tag: str | None = None) -> list[str]:
    """What has to be mended before a release, one line each."""
    version = found(root, 'hybrid_mm/version.py', r"^__version__ = '(.+)'$")
    lines = []
    if not re.fullmatch(r'\d+\.\d+\.\d+((a|b|rc)\d+)?', version):
        lines.append(f'hybrid_mm/version.py: {version!r} is not like 1.2.3 or 1.2.3rc1')
    if tag is not None and tag != f'v{version}':
        lines.append(f'tag: {tag} instead of v{version}')
    cited = found(root, 'CITATION.cff', r'^version: (.+)$')
    if cited != version:
        lines.append(f'CITATION.cff: version {cited or "is missing"} instead of {version}')
    section = found(root, 'CHANGELOG.md', r'^## (.+)$')
    if not re.fullmatch(rf'{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)', section):
        lines.append(f'CHANGELOG.md: first section "{section}" instead of "{version} (YYYY-MM-DD)"')
    status = subprocess.run(
        ['git', '-C', str(root), 'status', '--porcelain'], capture_output=True, text=True
    )
    if status.returncode:
        lines.append(f'git: {status.stderr.strip()}')
    elif status.stdout:
        lines.append(f'not committed: {status.stdout[3:].splitlines()[0]}')
    return lines


def main(argv: list[str] | None = None) -> int:
    """Print what has to be mended; exit status 1 if there is anything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('tag', nargs='?', metavar='TAG', help='tag of the release, e.g. v0.1.0')
    lines = problems(ROOT, parser.parse_args(argv).tag)
    print(*lines, sep='\n', end='\n' if lines else '')
    return int(bool(lines))


if __name__ == '__main__':
    sys.exit(main())
