"""The API reference shows all that is public, and that describes all of its arguments."""

import ast
import importlib.util
import inspect
import re
from collections import Counter

import pytest

from hybrid_mm import backbones
from hybrid_mm.backbones import NAT, PeLK

from . import api
from .blocks import PAGES, ROOT, blocks

spec = importlib.util.spec_from_file_location('reference', ROOT / 'docs/reference.py')
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


def test_pages_show_what_is_public():
    """Each module with ``__all__`` is on one page, and all pages are in the table of contents."""
    shown = Counter(module for modules in api.pages().values() for module in modules)
    assert set(shown) == set(api.public_modules()), (
        'modules with __all__, and those that a page of docs/api shows by automodule, differ'
    )
    assert set(shown.values()) == {1}
    index = (ROOT / 'docs/api/index.md').read_text()
    listed = index.split('```{toctree}')[1].split()[1:-1]
    assert sorted(listed) == sorted(set(api.pages()) - {'index'})
    for name in listed:
        assert f']({name}.md)' in index.split('```')[0]


def test_public_names_are_described():
    """Docstrings, and a description of each argument of functions, constructors and records."""
    assert not api.undocumented(), 'without a description:\n' + '\n'.join(api.undocumented())


def test_registered_classes_are_public():
    names = {name for module in api.public_modules() for name in api.public_names(module)}
    missing = {name: module for name, module in api.registered().items() if name not in names}
    assert not missing, f'in the registry, but in no __all__: {missing}'


def test_what_pages_import_is_public():
    """Names that snippets import stand in ``__all__`` of their module or of its room."""
    names = {name for module in api.public_modules() for name in api.public_names(module)}
    missing = set()
    for block in (block for page in PAGES for block in blocks(page)):
        if block.language != 'python' or block.page in WRITTEN:
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('hybrid_mm.'):
                missing |= {(block.page, alias.name) for alias in node.names} - {
                    (block.page, name) for name in names
                }
    assert not missing, f'imported by a page, but in no __all__: {sorted(missing)}'


# pages whose readers write modules of their own
WRITTEN = ('docs/add_a_backbone.md', 'docs/add_an_operator.md', 'docs/own_project.md')


DOC = '"""F.\n\n    {section}:\n        a{type}: A.\n    """\n'
FUNCTION = DOC.format(section='Args', type='').replace('a: A.', 'a: A.\n        *b, c: B.')
CLASS = DOC.format(section='Args', type=' (int)')
RECORD = DOC.format(section='Attributes', type='')


@pytest.mark.parametrize(
    ('source', 'expected'),
    [
        (f'def f(a, *b, c=1, **d):\n    {FUNCTION}', ['d']),
        ('def f(a):\n    """Map a to b."""', ['a']),
        (f'class F:\n    {CLASS}    def __init__(self, a, b): ...', ['b']),
        ('class F(NamedTuple):\n    """F."""\n    a: int  # A\n    b: int', ['b']),
        (f'@dataclass\nclass F:\n    {RECORD}    a: int\n    b: int', ['b']),
    ],
)
def test_missing_descriptions_are_found(source, expected, tmp_path, monkeypatch):
    (tmp_path / 'f.py').write_text(source)
    monkeypatch.setattr(api, 'place', lambda module: tmp_path / 'f.py')
    assert list(api.undescribed('f', ast.parse(source).body[0])) == expected


def test_inherited_arguments_are_shown():
    """Those of the bases follow ``**kwargs``, with their defaults, each once."""
    lines = reference.with_inherited(PeLK, inspect.cleandoc(PeLK.__doc__).splitlines())
    names = [m[1] for m in map(re.compile(r' {4}(\w+):').match, lines) if m]
    assert {'grids', 'layer_scale', 'out_indices', 'frozen_stages', 'init_cfg'} <= set(names)
    counts = Counter(names)
    assert counts['arch'] == counts['impl'] == counts['with_cp'] == 1
    assert any(line.endswith('Default: ``(0, 1, 2, 3)``.') for line in lines)
    kwargs = next(i for i, line in enumerate(lines) if line.startswith('    **kwargs'))
    raises = lines.index('Raises:')
    assert kwargs < next(i for i, line in enumerate(lines) if 'frozen_stages:' in line) < raises


def test_every_network_shows_the_shared_arguments():
    for name in backbones.__all__:
        cls = getattr(backbones, name)
        lines = reference.with_inherited(cls, inspect.cleandoc(cls.__doc__).splitlines())
        shown = set(re.findall(r'^    (\w+)[:,]', '\n'.join(lines), re.MULTILINE))
        accepted = set(inspect.signature(backbones.BaseBackbone.__init__).parameters) - {'self'}
        if name != 'QuadraticAttentionEncoder':  # which has one map
            assert accepted <= shown | {'arch'}, name


def test_variants_are_shown():
    text = '\n'.join(reference.variants(NAT))
    assert "* ``'small'``: ``dict(embed_dim=96, depths=(3, 4, 18, 5), " in text
    assert '* ``embed_dim``: channels of the first stage, doubled from stage to stage' in text
    assert "``'tiny'`` (also ``'t'``)" in '\n'.join(reference.variants(PeLK))
    halonet = '\n'.join(reference.variants(backbones.HaloNet))
    assert re.search(r'\* ``group_size``: channels of a group .* \(default ``0``\)', halonet)
    line = next(line for line in halonet.splitlines() if line.startswith("* ``'h0'``"))
    assert 'shortcut' not in line  # at its default
