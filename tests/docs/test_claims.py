"""What the pages say in passing is so: names, links, quoted messages, numbers, order of pages."""

import functools
import re
from pathlib import Path

import pytest

from hybrid_mm.apis import predictor
from hybrid_mm.data import corruptions
from hybrid_mm.engine import work_dir_lock
from hybrid_mm.run.checks import label_maps

from .blocks import ROOT, without_blocks

GENERATED = ('docs/model_zoo.md', 'docs/recipes.md', 'docs/recipes', 'docs/weights.md', 'docs/api')
PAGES = [
    page
    for page in [*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')]
    if page.name != 'CHANGELOG.md'
]
TUTORIALS = ('docs/add_a_backbone.md', 'docs/add_an_operator.md', 'docs/own_project.md')
SUFFIXES = ('*.py', '*.sh')
FOLDERS = (
    *('hybrid_mm', 'tools', 'tests'),
    *('configs/_base_', 'configs/camvid', 'configs/demo', 'configs/rotated', 'configs/study'),
)
OTHERS = {
    # names of other programs and placeholders, which our files do not contain
    *('reshape_transform', 'sdpa_kernel', 'SDPBackend', 'MATH', 'NCCL_SOCKET_IFNAME'),
    *(
        'HOST',
        'Guard',
        'worktree',
        'checkpoint_N',
        'centerness_i',
        'incompatible',
        'ade20k_panoptic_',
        'in21k',
    ),
}
EXTERNAL_FLAGS = {'--shm-size', '--ipc', '--config', '--dest'}  # of docker and mim


def written_by_hand(page: Path) -> bool:
    name = page.relative_to(ROOT).as_posix()
    return not name.startswith(GENERATED) and name not in TUTORIALS


@functools.cache
def text(page: Path) -> str:
    """Text of a page without its blocks of code and its generated parts."""
    generated = re.compile(r'^<!-- (\w+):begin -->$.*?^<!-- \1:end -->$', re.S | re.M)
    return generated.sub('', without_blocks(page))


def spans(page: Path) -> list[str]:
    """What is between backticks in a page."""
    return [' '.join(found.split()) for found in re.findall(r'`([^`]+)`', text(page))]


@functools.cache
def source() -> str:
    """All code of the project but this file."""
    files = [f for name in FOLDERS for suffix in SUFFIXES for f in (ROOT / name).rglob(suffix)]
    return '\n'.join(f.read_text() for f in files if f != Path(__file__))


@functools.cache
def identifiers() -> frozenset[str]:
    return frozenset(re.findall(r'\w+', source()))


@functools.cache
def flags() -> frozenset[str]:
    return frozenset(re.findall(r'(?<![\w-])(--[a-z][\w-]+)', source()))


def slug(heading: str) -> str:
    """Anchor of a heading, as GitHub and myst make it."""
    plain = re.sub(r'\[([^]]*)\]\([^)]*\)|`', r'\1', heading).strip().lower()
    return re.sub(r'[^\w\- ]', '', plain).replace(' ', '-')


@functools.cache
def anchors(page: Path) -> set[str]:
    return {slug(found) for found in re.findall(r'^#+ (.*)$', without_blocks(page), re.M)}


def broken_anchors(page: Path, content: str) -> list[str]:
    """Links of a text in a page that lead to no heading."""
    broken = []
    for path, anchor in re.findall(r'\]\(([^)#:\s]*)#([^)\s]+)\)', content):
        target = (page.parent / path).resolve() if path else page
        ours = target.suffix == '.md' and not anchor.startswith('hybrid_mm.')  # of docstrings
        if ours and anchor not in anchors(target):
            broken.append(f'{path}#{anchor}')
    return broken


def unknown_words(content: list[str]) -> set[str]:
    """Identifiers in spans that no file of the project contains."""
    found = set()
    for span in content:
        path = re.match(r'[\w./-]*(?:\.py|\.yml|\.md|\.sh|\.pth)\b|(?:docs|configs)/', span)
        if not path and not re.match(r'(?:python|bash|pip|mim|torchrun|srun) |https?:|@|>', span):
            found |= set(re.findall(r'(?<![*\w])[A-Za-z_]\w{2,}(?![*\w])', span))
    return found - identifiers() - OTHERS


def missing_paths(content: list[str]) -> list[str]:
    """Files and tests in spans that do not exist; placeholders have capitals or an x."""
    missing = []
    for span in content:
        found = re.match(r'((?:tests|tools|hybrid_mm|configs|docs)/[\w./-]*\w)(?:::(\w+))?$', span)
        if found and not re.search(r'/x\.py$|[A-Z]{3}', found[1]):
            file = ROOT / found[1]
            test = f'def {found[2]}('
            if not file.exists() or (found[2] and test not in file.read_text()):
                missing.append(span)
        elif re.match(r'test_\w+$', span) and f'def {span}(' not in source():
            missing.append(span)
    return missing


def unknown_flags(content: list[str]) -> set[str]:
    """Flags in spans that no tool or script has."""
    found = {flag for span in content for flag in re.findall(r'(?<!\S)(--[a-z][\w-]*)', span)}
    return found - flags() - EXTERNAL_FLAGS


def test_checks_find_mistakes():
    page = ROOT / 'docs/faq.md'
    assert broken_anchors(page, '[a](#nowhere) [b](reliability.md#exact-resume)') == ['#nowhere']
    assert unknown_words(['hybrid_mm.NoSuchNetwork', 'NAT(kernel_size=7)']) == {'NoSuchNetwork'}
    assert missing_paths(['tests/none.py', 'tests/test_compat.py::test_none', 'test_none']) == [
        *('tests/none.py', 'tests/test_compat.py::test_none', 'test_none'),
    ]
    assert unknown_flags(['--resume --flag-of-nobody']) == {'--flag-of-nobody'}


def test_links_lead_to_headings():
    broken = {page.name: broken_anchors(page, without_blocks(page)) for page in PAGES}
    assert not {name: links for name, links in broken.items() if links}


def test_names_exist():
    """Names in code style occur in the code; paths, tests and flags exist."""
    found = {}
    for page in filter(written_by_hand, PAGES):
        content = spans(page)
        wrong = [*unknown_words(content), *missing_paths(content), *unknown_flags(content)]
        if wrong:
            found[page.name] = wrong
    assert not found


def test_order_of_pages():
    """Every page by hand is in the site, and installation comes first."""
    index = (ROOT / 'docs/index.md').read_text()
    listed = re.findall(r'^([\w/]+)$', index, re.M)
    assert listed[:2] == ['installation', 'getting_started']
    pages = {p.stem for p in (ROOT / 'docs').glob('*.md')} - {'index'}
    assert pages <= set(listed)


@pytest.mark.parametrize(
    ('page', 'message'),
    [
        ('hooks.md', 'has no second derivative'),
        ('export.md', 'is laid out for one size of the map'),
        ('reliability_data.md', 'is truncated ('),
        ('reliability_data.md', 'broken sample'),
        ('reliability.md', 'training.lock'),
        ('reliability.md', 'non_finite_iter_'),
    ],
)
def test_quoted_messages_are_ours(page, message):
    assert message in (ROOT / 'docs' / page).read_text() and message in source()


def test_readmes_have_sources_and_weights():
    """FAQ: the README of a tree lists the weights that its configs start from, and the sources."""
    for file in (ROOT / 'configs').glob('*/metafile.yml'):
        tree, readme = file.parent.name, (file.parent / 'README.md').read_text()
        configs = '\n'.join(config.read_text() for config in file.parent.glob('*.py'))
        for name in set(re.findall(r'hybrid_mm://([\w.-]+)', configs)):
            assert f'`{name}`' in readme, f'{tree}: {name}'
        if (file.parent / 'recipe.yml').exists():
            assert f'(../../docs/recipes/{tree}.md)' in readme
            assert (ROOT / f'docs/recipes/{tree}.md').exists()


@pytest.mark.parametrize(
    ('page', 'said', 'value', 'expected'),
    [
        ('reliability_data.md', 'up to 500 are read', label_maps.MANY, 500),
        ('reliability.md', 'up to 50 seconds', work_dir_lock.PATIENCE, 50),
        ('inference.md', 'at most four batches ahead', predictor.LOOKAHEAD, 4),
        ('tools.md', 'under 19 corruptions', len(corruptions.CORRUPTIONS), 19),
    ],
)
def test_numbers_are_those_of_the_code(page, said, value, expected):
    assert said in ' '.join((ROOT / 'docs' / page).read_text().split()) and value == expected


# ---------------------------------------------------------------- numbers of benchmarks.md


@functools.cache
def tables() -> dict[str, list[dict[str, str]]]:
    """Rows of the tables of benchmarks.md by the name of the benchmark."""
    page = (ROOT / 'docs/benchmarks.md').read_text()
    found = {}
    parts = re.findall(r'<!-- benchmark:(\w+):begin -->(.*?)<!-- benchmark', page, re.S)
    for name, part in parts:
        lines = [line.strip('| ').split(' | ') for line in part.splitlines() if line[:2] == '| ']
        keys = ('case', 'candidate', 'fwd ms', 'fwd x', 'ms', 'x', 'fwd MB', 'MB', 'MB x', 'kept')
        found[name] = [dict(zip(keys, line, strict=False)) for line in lines[1:]]
    return found


def factors(name: str, candidate: str, column: str, case: str = '') -> tuple[float, float]:
    """Least and largest factor of a candidate over the cases whose name contains a text."""
    rows = [
        float(row[column])
        for row in tables()[name]
        if re.search(candidate, row['candidate']) and re.search(case, row['case'])
        if row[column] != '-'
    ]
    return min(rows), max(rows)


PUBLISHED = 'published'
CLAIMS = [
    # page, text with its numbers, benchmark, candidate, column, cases
    ('benchmarks.md', r'tiles are (\d+) to (\d+) times faster than gathered windows',
     'local_attention', 'gather$', 'x', ''),
    ('benchmarks.md', r'gathered windows and need (\d+) to (\d+) times less\s+memory. They',
     'local_attention', 'gather$', 'MB x', ''),
    ('benchmarks.md', r'They are (\d+) to (\d+) times faster than NATTEN',
     'local_attention', 'NATTEN', 'x', ''),
    ('benchmarks.md', r'operator is (\d+) to (\d+) times faster\s+than gathered',
     'neighborhood', 'gather', 'x', ''),
    ('benchmarks.md', r'and needs (\d+) to (\d+) times less memory. It is',
     'neighborhood', 'gather', 'MB x', ''),
    ('benchmarks.md', r'It is (\d+) to (\d+) times faster than NATTEN',
     'neighborhood', 'NATTEN', 'x', ''),
    ('benchmarks.md', r'need ([\d.]+) to ([\d.]+) times our memory',
     'neighborhood', 'NATTEN', 'MB x', ''),
    ('benchmarks.md', r'need ([\d.]+) to ([\d.]+) times less\s+memory at stride 1',
     'acmix', PUBLISHED, 'MB x', 'stride 1'),
    ('benchmarks.md', r'stride 2 they are ([\d.]+) to ([\d.]+) times faster',
     'acmix', PUBLISHED, 'x', 'stride 2'),
    ('benchmarks.md', r'faster and need ([\d.]+) to ([\d.]+)\s+times less memory;',
     'acmix', PUBLISHED, 'MB x', 'stride 2'),
    ('benchmarks.md', r'needs (\d+) to (\d+)\s+times less memory. With trained',
     'elsa', PUBLISHED, 'MB x', r'\d$'),
    ('benchmarks.md', r'A layer is ([\d.]+) to ([\d.]+) times faster',
     'evolving_attention', 'formulas', 'x', 'layer'),
    ('benchmarks.md', r'a chain of six layers ([\d.]+) to ([\d.]+) times',
     'evolving_attention', 'formulas', 'x', 'chain'),
    ('benchmarks.md', r'no maps, takes ([\d.]+) to ([\d.]+) times as long',
     'evolving_attention', 'AA attention', 'x', ''),
    ('benchmarks.md', r'(\d+) to (\d+) times faster at 64 x 64',
     'lesa', PUBLISHED, 'x', '64x64'),
    ('benchmarks.md', r'64 x 64 with (\d+) to (\d+) times less memory',
     'lesa', PUBLISHED, 'MB x', '64x64'),
    ('benchmarks.md', r'is (\d+) to (\d+) times slower there',
     'qna', 'windows', 'x', '200x304'),
    ('benchmarks.md', r'needs ([\d.]+) to (\d+) times the memory',
     'qna', 'windows', 'MB x', '200x304'),
    ('faq.md', r'needs ([\d.]+) to ([\d.]+) times less memory than the published code at stride 1',
     'acmix', PUBLISHED, 'MB x', 'stride 1'),
    ('faq.md', r'neighborhood attention (\d+) to (\d+) times\s+less',
     'neighborhood', 'gather', 'MB x', ''),
    ('faq.md', r'ELSA (\d+) to (\d+) times less', 'elsa', PUBLISHED, 'MB x', r'\d$'),
    ('papers/acmix.md', r'([\d.]+) to ([\d.]+) times less memory',
     'acmix', PUBLISHED, 'MB x', 'stride 1'),
    ('papers/nat.md', r'(\d+) to (\d+) times less memory', 'neighborhood', 'gather', 'MB x', ''),
    ('papers/elsa.md', r'(\d+) to\s+(\d+) times less', 'elsa', PUBLISHED, 'MB x', r'\d$'),
    ('papers/lesa.md', r'(\d+) to (\d+) times less memory', 'lesa', PUBLISHED, 'MB x', '64x64'),
]  # fmt: skip


@pytest.mark.parametrize('claim', CLAIMS, ids=lambda claim: f'{claim[0]}-{claim[1][:30]}')
def test_factors_are_those_of_the_tables(claim):
    page, pattern, *selection = claim
    name, candidate, column, case = selection
    flat = (ROOT / 'docs' / page).read_text()
    found = re.search(pattern, flat)
    assert found, f'{page} says nothing like {pattern}'
    for said, measured in zip(found.groups(), factors(name, candidate, column, case), strict=True):
        digits = len(said.partition('.')[2])
        assert abs(float(said) - measured) <= 0.6 * 10**-digits, f'{said} is {measured}'


@pytest.mark.parametrize(
    ('page', 'said', 'case', 'candidate'),
    [
        ('benchmarks.md', 'is 104 times faster than', 'K 51, 1x32x56x56', 'auto'),
        ('benchmarks.md', '48 times for 31 x 31', 'K 31, 1x32x56x56', 'auto'),
        ('benchmarks.md', '8 times for 13 x 13', 'K 13, 1x32x56x56', 'auto'),
        ('faq.md', '104 times faster', 'K 51, 1x32x56x56', 'auto'),
        ('papers/pelk.md', '104 times faster', 'K 51, 1x32x56x56', 'auto'),
        ('papers/replknet.md', '48 times', 'K 31, 1x32x56x56', 'auto'),
    ],
)
def test_factors_of_the_peripheral_convolution(page, said, case, candidate):
    assert said in ' '.join((ROOT / 'docs' / page).read_text().split())
    rows = {r['candidate']: float(r['ms']) for r in tables()['peripheral'] if r['case'] == case}
    number = float(re.search(r'\d+', said)[0])
    assert abs(rows['dense'] / rows[candidate] / number - 1) < 0.05
