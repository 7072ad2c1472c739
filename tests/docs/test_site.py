"""The site builds without a warning, asks no other server for anything, and holds every page."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest

from .blocks import ROOT, without_blocks

spec = importlib.util.spec_from_file_location('build_docs', ROOT / 'tools/dev/build_docs.py')
build_docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_docs)


def test_links_lead_into_the_site(tmp_path):
    """Every file of the sources is there, and whatever one links to, without a build."""
    build_docs.collect(tmp_path)
    pages = sorted(tmp_path.rglob('*.md'))
    names = {page.relative_to(tmp_path).as_posix() for page in pages}
    ours = {page.relative_to(ROOT / 'docs').as_posix() for page in (ROOT / 'docs').rglob('*.md')}
    assert ours < names and 'configs/van/README.md' in names
    for page in pages:
        for link in re.findall(r'\]\(([^)\s#]+)[^)\s]*\)', without_blocks(page)):
            if not build_docs.SCHEME.match(link):
                assert (page.parent / link).exists(), f'{page.relative_to(tmp_path)}: {link}'


@pytest.mark.slow
def test_site(tmp_path):
    command = [sys.executable, str(ROOT / 'tools/dev/build_docs.py'), '--out', str(tmp_path)]
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
    index = json.loads(re.search(r'\((.*)\)', (tmp_path / 'searchindex.js').read_text())[1])
    for argument in ('grids', 'impl', 'out_indices', 'frozen_stages', 'init_cfg', 'window_size'):
        assert argument in index['indexentries'], f'the search does not find {argument}'
    names = {entry[4] for entries in index['objects'].values() for entry in entries}
    assert {'make_attention', 'custom_op', 'default_impl', 'MODELS', 'check_backbone'} <= names
    networks = (tmp_path / 'api/backbones.html').read_text()
    for name in ('frozen_stages', 'norm_eval', 'with_cp', 'init_cfg'):
        # inherited arguments are described at each network
        assert networks.count(f'<strong>{name}</strong>') > 25, name
    assert 'id="hybrid_mm.backbones.NAT"' in networks
    assert (
        'href="../api/backbones.html#hybrid_mm.backbones.NAT"'
        in (tmp_path / 'papers/nat.html').read_text()
    )
    assert 'Initializes internal Module state' not in networks  # what nn.Module says of itself


def test_links_to_the_api_reference_are_left_to_sphinx():
    text, found = build_docs.rewrite(
        'docs/papers/nat.md',
        '[NAT](../api/backbones.md#hybrid_mm.backbones.NAT) [a](../api/ops.md)',
    )
    assert text == '[NAT](#hybrid_mm.backbones.NAT) [a](../api/ops.md)'
    assert found == ['docs/api/backbones.md', 'docs/api/ops.md']


def test_broken_link_is_an_error():
    """Links into the project that lead nowhere are left as they are, for Sphinx to refuse."""
    text, found = build_docs.rewrite('docs/faq.md', '[a](../configs/no.py) [b](../tools/train.py)')
    assert text == '[a](../configs/no.py) [b](tools/train.py.txt)'
    assert found == ['tools/train.py']
