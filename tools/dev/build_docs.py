#!/usr/bin/env python
"""Build the documentation site; every warning, such as a broken link, is an error.

    python tools/dev/build_docs.py                # into site/; open site/index.html

The pages are those of docs/. Their links to other files of the project, such as
`../configs/van/README.md` or `../configs/van/x.py`, work in the repository and on the site: there
Markdown files become pages, a folder the page of its README or a list of its files, and any other
file a copy that browsers show as text. The pages of docs/api are made from the
docstrings. The site and its search work without a network. Needs `pip install 'hybrid-mm[docs]'`.
"""

import argparse
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r'(\]\()([^)\s#]+)(#[^)\s]*)?(\))')
SCHEME = re.compile(r'[a-z][a-z0-9+.-]*:|/', re.IGNORECASE)


def target(origin: str, link: str) -> str | None:
    """Path in the project that a link in the file ``origin`` leads to, or None."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    if SCHEME.match(link) or path.startswith('..') or not (ROOT / path).exists():
        return None
    return path


def place(path: str) -> str:
    """Path of a file or folder of the project in the sources of the site."""
    if path.startswith('docs/'):
        return path.removeprefix('docs/')
    if (ROOT / path).is_dir():
        return f'{path}/README.md'
    return path if path.endswith('.md') else f'{path}.txt'


def rewrite(origin: str, text: str) -> tuple[str, list[str]]:
    """Text of a page with links rewritten for the site, and the paths that it links to."""
    found = []
    here = posixpath.dirname(place(origin)) if not (ROOT / origin).is_dir() else origin

    def replace(match: re.Match) -> str:
        head, link, anchor, tail = match.groups()
        path = target(origin, link)
        if path is None:
            return match[0]
        found.append(path)
        if path.startswith('docs/api/') and (anchor or '').startswith('#hybrid_mm.'):
            return f'{head}{anchor}{tail}'  # an object, which Sphinx finds by its name
        return f'{head}{posixpath.relpath(place(path), here or ".")}{anchor or ""}{tail}'

    return LINK.sub(replace, text), found


def content(path: str) -> tuple[str, str]:
    """Path and text of a page: a Markdown file, or a folder's README or list of files."""
    source = ROOT / path
    if source.is_dir():
        if (source / 'README.md').exists():
            return f'{path}/README.md', (source / 'README.md').read_text()
        names = sorted(p.name for p in source.iterdir() if p.suffix in ('.py', '.md', '.yml'))
        links = ''.join(f'- [{name}]({path}/{name})\n' for name in names)
        return 'README.md', f'# {path}\n\n{links}'  # the links start at the root
    return path, source.read_text()


def collect(folder: Path) -> None:
    """Write the sources of the site to a folder."""
    shutil.copytree(ROOT / 'docs', folder, dirs_exist_ok=True)
    pages = [p.relative_to(ROOT).as_posix() for p in sorted((ROOT / 'docs').rglob('*.md'))]
    waiting, seen = list(pages), set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        source, file = ROOT / path, folder / place(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not (path.endswith('.md') or source.is_dir()):
            if not path.startswith('docs/'):
                shutil.copyfile(source, file)
            continue
        origin, text = content(path)
        text, found = rewrite(origin, text)
        if origin == 'README.md' and source.is_dir():
            text = text.replace(f']({path}/', '](')
        if path not in pages:
            text = f'---\norphan: true\n---\n{text}'
        file.write_text(text)
        waiting += found


def main(argv: list[str] | None = None) -> int:
    """Build the site; return the exit status of Sphinx."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', default='site', help='folder of the site (default: site)')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        collect(Path(folder) / 'docs')
        command = [sys.executable, '-m', 'sphinx', '-b', 'html', '-W', '--keep-going', '-q']
        return subprocess.run(
            [*command, '-d', f'{folder}/doctrees', f'{folder}/docs', args.out], check=False
        ).returncode


if __name__ == '__main__':
    sys.exit(main())
