"""tools/analysis/kernel_size.py, and the page that tools/analysis/report.py makes."""

import json
import re
import shutil
import subprocess

import pytest
import torch
from PIL import Image

from hybrid_mm.analysis import variants
from hybrid_mm.analysis.kernel_size import build, measure
from hybrid_mm.backbones import PeLK, SLaK
from hybrid_mm.data.corruptions import BENCHMARK

BROWSERS = ('chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome')


def results(accuracy):
    """Made-up results of a classifier on the 15 corruptions."""
    found = {'clean': {'0': {'accuracy/top1': accuracy}}}
    for name in BENCHMARK:
        found[name] = {str(s): {'accuracy/top1': accuracy - 5.0 * s} for s in range(1, 6)}
    return found


@pytest.fixture
def folders(tmp_path):
    """Results of two models and of a receptive field, with a picture."""
    from hybrid_mm.analysis.corruption_study import summarise

    for name, accuracy in (('first', 70.0), ('second <b>', 80.0)):
        folder = tmp_path / name.split()[0]
        folder.mkdir()
        found = results(accuracy)
        content = dict(kind='robustness', label=name, settings={}, results=found)
        content['summary'] = summarise(found)
        (folder / 'robustness.json').write_text(json.dumps(content))
    folder = tmp_path / 'erf'
    folder.mkdir()
    model = dict(label='net', weights='random weights', images=2, skipped=0)
    model['squares'] = {'0.2': [31, 0.0146], '0.99': None}
    content = dict(kind='receptive_field', size=[256, 256], stage=-1, models=[model])
    (folder / 'receptive_field.json').write_text(json.dumps(content))
    Image.new('RGB', (90, 60), 'teal').save(folder / 'receptive_fields.png')
    return tmp_path / 'first', tmp_path / 'second', tmp_path / 'erf'


@pytest.fixture
def page(tool, folders, tmp_path):
    out = tmp_path / 'page' / 'report.html'
    assert tool('analysis/report', *folders, '--out', out, '--title', 'Two <nets>')[0] == 0
    return out


def test_page_needs_no_other_file(page):
    text = page.read_text()
    assert 'Two &lt;nets&gt;' in text
    assert 'second &lt;b&gt;' in text and 'second <b>' not in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert 'url(' not in text and '@import' not in text and '<script' not in text
    assert text.count('<img') == 2  # the curves of both models, and the picture in the folder
    # mean of severities 1 to 5 is 15 below the clean accuracy; the larger one is bold
    assert '<td class="best">65</td>' in text and '<td>55</td>' in text
    assert '31 px, 1.5%' in text


def test_the_smallest_error_is_the_best(tool, tmp_path):
    for name, clean, error in (('a', 70.0, 55.0), ('b', 80.0, 66.5)):
        (tmp_path / name).mkdir()
        content = dict(kind='robustness', label=name, settings={}, results=results(clean))
        content['summary'] = {'accuracy/top1': {'clean': clean, 'mCE(15)': error}}
        (tmp_path / name / 'robustness.json').write_text(json.dumps(content))
    out = tmp_path / 'r.html'
    assert tool('analysis/report', tmp_path / 'a', tmp_path / 'b', '--out', out)[0] == 0
    table = out.read_text().partition('<tbody>')[2].partition('</tbody>')[0]
    assert table == (
        '<tr><td>a</td><td>70</td><td class="best">55</td></tr>'
        '<tr><td>b</td><td class="best">80</td><td>66.5</td></tr>'
    )


def test_tables_of_the_other_kinds(tool, tmp_path):
    """Made-up results, and the rows that they become."""
    weights = dict(weights='w.pth')
    contents = dict(
        shape_texture=dict(
            images=80,
            normalise='pooled',
            seeds=5,
            models=[
                dict(
                    label='net',
                    neurons=512,
                    **weights,
                    percent=dict(shape=30.25, texture=20.5, residual=49.25),
                )
            ],
        ),
        texture_knn=dict(
            k=5,
            metric='cosine',
            images=120,
            classes=47,
            models=[
                dict(label='a', mean=61.25, splits={'1': 60.0, '3': 62.5}, **weights),
                dict(label='b', mean=70.5, splits={'1': 70.5}, **weights),
            ],
        ),
        kernel_size=dict(
            arch='tiny',
            shape=[64, 96],
            batch=2,
            environment=dict(torch='9.9'),
            points=[
                dict(
                    family='lska',
                    kernel_size=23,
                    params=3772000,
                    macs=8 * 10**8,
                    inference_ms=1.25,
                    training_ms=None,
                    inference_peak=None,
                    training_peak=None,
                    accuracy=75.5,
                )
            ],
        ),
    )
    for study, content in contents.items():
        (tmp_path / study).mkdir()
        (tmp_path / study / f'{study}.json').write_text(json.dumps(dict(content, kind=study)))
    out = tmp_path / 'r.html'
    assert tool('analysis/report', tmp_path, '--out', out)[0] == 0
    text = out.read_text()

    def row(*cells):
        marked = (c if c.startswith('<td') else f'<td>{c}</td>' for c in cells)
        return f'<tr>{"".join(marked)}</tr>'

    assert row('net', '512', '30.25', '20.5', '49.25', 'w.pth') in text
    assert '80 images, scores pooled, means over 5 choices of partners.' in text
    assert row('a', '60', '62.5', '61.25', 'w.pth') in text
    best = '<td class="best">70.5</td>'
    assert row('b', '70.5', '–', best, 'w.pth') in text  # noqa: RUF001
    assert 'k = 5, cosine; 120 images of 47 classes.' in text
    # columns that no point has are left out
    assert row('lska', '23', '3,772,000', '800,000,000', '1.25', '75.5') in text
    assert 'tiny, 64 x 96, batches of 2. torch 9.9.' in text


def test_page_in_a_browser(page, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip('no headless browser (Debian package chromium-headless-shell or chromium)')
    probe = """<script>addEventListener('load', () => {
      const images = [...document.images].map(i => i.complete ? i.naturalWidth : 0);
      const tables = [...document.querySelectorAll('table')].map(t => t.rows.length);
      const links = [...document.links].map(a => !!document.querySelector(a.hash));
      const other = performance.getEntriesByType('resource')
        .filter(e => !e.name.startsWith('data:')).length;
      const wide = document.documentElement.scrollWidth - innerWidth;
      const pre = document.createElement('pre'); pre.id = 'probe';
      pre.textContent = JSON.stringify({images, tables, links, other, wide});
      document.body.append(pre); })</script>"""
    probed = tmp_path / 'probed.html'
    probed.write_text(page.read_text().replace('</body>', probe + '</body>'))
    command = [browser, '--headless', '--no-sandbox', '--disable-gpu', '--window-size=900,700']
    command += ['--virtual-time-budget=5000', '--dump-dom', probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    match = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)
    assert match, done.stderr[-2000:]
    found = json.loads(match[1])
    assert len(found['images']) == 2 and all(width > 50 for width in found['images'])
    assert len(found['tables']) == 3 and min(found['tables']) >= 2
    assert found['links'] == [True, True]
    assert found['other'] == 0
    assert found['wide'] <= 0


def test_mistakes_of_the_report(fails, folders, tmp_path):
    out = ('--out', tmp_path / 'r.html')
    assert 'does not exist; expected a folder' in fails('analysis/report', tmp_path / 'no', *out)
    (tmp_path / 'empty').mkdir()
    assert 'holds no results' in fails('analysis/report', tmp_path / 'empty', *out)
    file = folders[2] / 'receptive_field.json'
    file.write_text('{"kind": "receptive_field", "models": [{}], "size": [1, 1]}')
    assert "are incomplete: KeyError('squares')" in fails('analysis/report', folders[2], *out)
    file.write_text('nothing')
    assert 'is not a result of an analysis' in fails('analysis/report', folders[2], *out)
    assert not (tmp_path / 'r.html').exists()


# ---------------------------------------------------------------- kernel size


@pytest.mark.slow  # trains; its parts are tested below
def test_study(tool, tmp_path):
    metrics = tmp_path / 'metrics.json'
    metrics.write_text('{"accuracy/top1": 75.5, "accuracy/top5": 90}')
    out = tmp_path / 'o'
    flags = ('--families', 'lska', 'lka-trivial', '--sizes', 7, 11, '--shape', 64, 64)
    more = ('--rounds', 1, '--device', 'cpu', '--accuracy', f'lska:7={metrics}', '--out', out)
    assert tool('analysis/kernel_size', *flags, *more)[0] == 0
    points = json.loads((out / 'kernel_size.json').read_text())['points']
    assert [(p['family'], p['kernel_size'], p['accuracy']) for p in points] == [
        ('lska', 7, 75.5),
        ('lska', 11, None),
        ('lka-trivial', 7, None),
        ('lka-trivial', 11, None),
    ]
    assert all(p['training_ms'] > p['inference_ms'] > 0 for p in points)
    assert all(p['training_peak'] > p['inference_peak'] > 0 for p in points)
    # VAN-B0: 11^2 - 7^2 more taps in each channel of its 3, 3, 5, 2 blocks
    channels = 3 * 32 + 3 * 64 + 5 * 160 + 2 * 256
    assert points[3]['params'] - points[2]['params'] == channels * (11**2 - 7**2)
    assert (out / 'kernel_size.png').stat().st_size > 5000


def test_inference_only(tool, tmp_path, monkeypatch):
    """Times of an image, of a batch of 4; no backward passes."""
    taken = dict(inference=0.25, training=1.0)
    monkeypatch.setattr(variants.Passes, 'seconds', lambda self, mode, name: taken[mode])
    flags = ('--families', 'lska', '--sizes', 7, '--shape', 32, 32, '--rounds', 1)
    more = ('--batch', 4, '--device', 'cpu', '--out', tmp_path)
    assert tool('analysis/kernel_size', *flags, *more, '--inference-only')[0] == 0
    (point,) = json.loads((tmp_path / 'kernel_size.json').read_text())['points']
    assert (point['inference_ms'], point['training_ms']) == (62.5, None)
    assert point['training_peak'] is None


@pytest.mark.parametrize('family', ['pelk', 'slak'])
def test_the_last_stage_has_kernels_of_13_at_most(family):
    network = dict(pelk=PeLK, slak=SLaK)[family]
    with torch.device('meta'):
        for size, last in ((51, 13), (7, 7)):
            expected = network('tiny', kernel_sizes=(size, size, size, last))
            shapes = {name: p.shape for name, p in expected.named_parameters()}
            found = build(family, size)
            assert {name: p.shape for name, p in found.named_parameters()} == shapes


@pytest.mark.parametrize('family', ['lka', 'lska', 'lka-trivial', 'lska-trivial', 'pelk', 'slak'])
def test_families(family):
    assert sum(p.numel() for p in build(family, 23).parameters()) > 1e6


def test_kernels_of_slak_in_van():
    """Counted by hand: 2 stripes of 23 x 5 and a kernel of 5 x 5 in every block, 40 % of them 0."""
    names = [('lka-trivial', 23), ('slak-decomposed', 23), ('slak-sparse-decomposed', 23)]
    trivial, dense, sparse = measure(names, (64, 64), 'small', rounds=0)
    blocks = ((64, 2, 16), (128, 2, 8), (320, 4, 4), (512, 2, 2))  # channels, number, side of map
    channels = sum(c * n for c, n, _ in blocks)
    positions = sum(c * n * side**2 for c, n, side in blocks)
    taps = 2 * 23 * 5 + 5 * 5
    assert dense.params - trivial.params == (taps + 3 - 23 * 23 - 1) * channels
    assert dense.macs - trivial.macs == (taps - 23 * 23) * positions
    assert dense.params - sparse.params == round(0.4 * taps * channels)
    assert dense.macs - sparse.macs == round(0.4 * taps * positions)


def test_mistakes_of_the_study(fails, tmp_path):
    def error(*arguments):
        flags = ('--sizes', 7, '--shape', 32, 32, '--rounds', 0, '--out', tmp_path / 'o')
        return fails('analysis/kernel_size', *flags, *arguments)

    assert "no family 'lksa'" in error('--families', 'lksa')
    assert 'must be odd and at least 3, got 8' in error('--sizes', 8)
    assert 'kernel_size=13 has no default dilation' in error('--sizes', 13)
    assert 'expected FAMILY:K=FILE' in error('--accuracy', 'lska:9=x')
    assert 'holds no top-1 accuracy' in error('--accuracy', f'lska:7={tmp_path / "no"}')
