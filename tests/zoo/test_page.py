"""The page of the model zoo: it holds the metafiles' figures and works in a browser, offline."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hybrid_mm.run.published import published_weights
from hybrid_mm.zoo.metafile import MAIN_METRICS, read_trees, source_type
from hybrid_mm.zoo.page import page

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
FLAGS = (
    *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'),
    *('--disable-sync', '--disable-background-networking', '--disable-component-update'),
    '--window-size=1200,900',
)


@pytest.fixture(scope='module')
def trees():
    return read_trees(ROOT)


@pytest.fixture(scope='module')
def html(trees):
    return page(trees)


def test_data_equal_the_metafiles(trees, html):
    text = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    data = json.loads(text[1])
    models = [model for tree in trees for model in tree.models]
    assert len(data['models']) == len(models)
    for row, model in zip(data['models'], models, strict=True):
        name, paper, task, head, parameters, flops, height, width, results = row
        assert f'{data["papers"][paper]["folder"]}/{name}.py' == model.config
        assert data['tasks'][task]['key'] == model.group.key
        assert data['heads'][head] == model.head
        assert (parameters, flops, (height, width)) == (model.parameters, model.flops, model.size)
        for source, origin, metrics in results:
            found = model.metrics()[source]
            assert origin == source_type(source)
            assert metrics == {key: found[key] for key in MAIN_METRICS if key in found}


def test_published_weights_are_linked(trees, html):
    """Of every config that has some: case, and an address or a page."""
    text = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    found = json.loads(text[1])['weights']
    for model in (model for tree in trees for model in tree.models):
        weights = published_weights(model.name)
        if weights is None or not weights.files:
            assert model.name not in found
            continue
        case, address = found[model.name]
        files = weights.files
        assert case == weights.case in ('automatic', 'manual')
        places = [url for f in files for url in f.urls] if case == 'automatic' else []
        assert address in (places or [f.page for f in files]), model.name


def test_sources():
    assert source_type('measured') == 'measured'
    assert source_type('paper (recalled, unverified)') == 'unverified'
    assert source_type('official README') == 'reported'


def test_page_asks_for_nothing_and_stays_small(html):
    code = html[: html.index('<script id="data"')] + html[html.index('</script>') :]
    assert not re.search(r'https?://(?!www\.w3\.org/2000/svg)', code)
    assert not re.search(r'\bsrc=|<link|@import|url\(|fetch\(|XMLHttpRequest', code)
    assert "default-src 'none'" in code
    assert len(html) < 1_000_000


def in_browser(html, tmp_path, view):
    """DOM of the page after its script ran."""
    file = tmp_path / 'zoo.html'
    file.write_text(html)
    done = subprocess.run(
        [
            CHROMIUM,
            *FLAGS,
            f'--user-data-dir={tmp_path / "profile"}',
            '--dump-dom',
            f'{file.as_uri()}#{view}',
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason='needs chromium')
def test_view_of_the_address(trees, html, tmp_path):
    view = 'task=detection&paper=van&head=Mask+R-CNN&params=20-50&sort=-box+AP&x=params'
    dom = in_browser(html, tmp_path, view)
    models = [
        model
        for tree in trees
        if tree.folder.name == 'van'
        for model in tree.models
        if model.head == 'Mask R-CNN' and 20e6 <= model.parameters <= 50e6
    ]
    models.sort(key=lambda model: -max(m.get('box AP', 0) for m in model.metrics().values()))
    assert re.findall(r'<tr class="" id="row-([^"]+)"', dom) == [model.name for model in models]
    assert f'{len(models)} of ' in dom
    with_ap = sum('box AP' in m for model in models for m in model.metrics().values())
    plot = re.search(r'<div id="plot".*?</svg>', dom, re.DOTALL)[0]
    assert len(re.findall('class="point"', plot)) == with_ap > 0
    assert 'Parameters, M (logarithmic)' in plot
    assert f'title="python tools/train.py {models[0].config}"' in dom


@pytest.mark.skipif(CHROMIUM is None, reason='needs chromium')
def test_a_bad_address_shows_all(trees, html, tmp_path):
    dom = in_browser(html, tmp_path, 'task=nothing&params=a-b&sort=x&metric=y')
    total = sum(len(tree.models) for tree in trees)
    assert f'{total} of {total} configs' in dom


@pytest.mark.skipif(CHROMIUM is None, reason='needs chromium')
def test_copies_commands_and_walks_the_plot_by_keyboard(trees, html, tmp_path):
    user = """<script>
      const written = [];
      Object.defineProperty(navigator, 'clipboard',
                            {value: {writeText: async text => { written.push(text); }}});
      document.querySelector('tbody tr').querySelectorAll('button').forEach(b => b.click());
      document.body.dataset.written = written.join('|');
      const press = key => $('plot').dispatchEvent(new KeyboardEvent('keydown', {key}));
      const told = () => $('tip').querySelector('b').textContent;
      press('Home'); document.body.dataset.first = told();
      press('ArrowRight'); document.body.dataset.second = told();
      press('Enter'); document.body.dataset.found = document.querySelector('tr.found').id;
      press('Escape'); document.body.dataset.left = $('tip').textContent;
    </script></body>"""
    assert html.count('</body>') == 1
    dom = in_browser(html.replace('</body>', user), tmp_path, 'paper=van&sort=name')
    done = dict(re.findall(r'data-(written|first|second|found|left)="([^"]*)"', dom))
    row = re.search(r'<tr class="[^"]*" id="row-([^"]+)"', dom)[1]
    model = next(m for tree in trees for m in tree.models if m.name == row)
    assert set(done['written'].split('|')) == {
        str(model.config),
        f'python tools/train.py {model.config}',
    }
    assert done['first'] != done['second']
    assert done['found'] == f'row-{done["second"]}'
    assert done['left'] == ''
