"""The site builds without a warning, asks no other server for anything, and holds every page."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_site(tmp_path):
    command = [sys.executable, str(ROOT / 'tools/build_docs.py'), '--out', str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {p.relative_to(tmp_path).with_suffix('').as_posix() for p in tmp_path.rglob('*.html')}
    for page in (ROOT / 'docs').rglob('*.md'):
        assert page.relative_to(ROOT / 'docs').with_suffix('').as_posix() in pages
    assert 'configs/van/README' in pages
    for page in tmp_path.rglob('*.html'):
        loaded = re.findall(
            r'<(?:script|img|iframe|link rel="stylesheet")[^>]*"((?:https?:)?//[^"]*)"',
            page.read_text(),
        )
        assert not loaded, f'{page.name} loads {loaded}'
    assert (tmp_path / 'searchindex.js').stat().st_size > 10000


def test_broken_link_is_an_error(tmp_path, monkeypatch):
    """Links into the project that lead nowhere are left as they are, for Sphinx to refuse."""
    sys.path.insert(0, str(ROOT / 'tools'))
    try:
        import build_docs
    finally:
        sys.path.remove(str(ROOT / 'tools'))
    text, found = build_docs.rewrite('docs/faq.md', '[a](../configs/no.py) [b](../tools/train.py)')
    assert text == '[a](../configs/no.py) [b](tools/train.py.txt)'
    assert found == ['tools/train.py']
