"""tools/dev/matrix.py without building anything: lists, plan, checks that pass or fail, table."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .test_dev import ROOT, load

matrix = load('matrix')
PYTHON = 'python -c'


@pytest.fixture
def build(tmp_path, monkeypatch):
    """An environment that is this one."""
    environment = matrix.Environment('now', 'this one', '3.11', cannot={'never': 'no such thing'})
    found = matrix.Build(environment, tmp_path / 'now')
    (found.folder / 'env/bin').mkdir(parents=True)
    found.python.symlink_to(sys.executable)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return found


def check(*run, name='thing', **more):
    return matrix.Check(name, 'a thing', run, **more)


def run(build, *commands, **more):
    return matrix.run_check(check(*commands, **more), build, 'abc')


def test_lists_fit_together():
    environments, checks = matrix.read_lists()
    assert {'torch2.1', 'torch2.4', 'onedl', 'oldest', 'python3.13'} == set(environments)
    assert 'mmcv==2.2.0' in environments['torch2.4'].pins
    for item in checks.values():
        for words in matrix.commands(item):
            files = [word for word in words if word.startswith(str(ROOT))]
            assert files
            assert all(Path(file).exists() for file in files), files


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('environments: {a: {titel: x, python: "3.11"}}\nchecks: {}', 'x.yml: a: .*titel'),
        (
            'environments: {a: {title: x, python: "3.11", cannot: {b: c}}}\nchecks: {}',
            'a cannot .*b.*: no such check',
        ),
    ],
)
def test_mistakes_in_the_lists(tmp_path, text, message):
    (tmp_path / 'x.yml').write_text(text)
    with pytest.raises(ValueError, match=message):
        matrix.read_lists(tmp_path / 'x.yml')


def test_golden_cases_are_left_out_where_there_are_none(tmp_path, monkeypatch):
    item = check('python a.py', 'python b.py {golden}')
    monkeypatch.setenv('GOLDEN', str(tmp_path))
    assert matrix.commands(item) == [['python', 'a.py'], ['python', 'b.py', str(tmp_path)]]
    monkeypatch.setenv('GOLDEN', str(tmp_path / 'nowhere'))
    assert matrix.commands(item) == [['python', 'a.py']]


def test_check_passes_in_its_own_folder_and_leaves_nothing(build):
    code = (
        "import os, pathlib; pathlib.Path('x').touch(); print(os.getcwd()); print('3 passed in 1s')"
    )
    result = run(build, f'{PYTHON} "{code}"')
    assert (result.status, result.detail, result.commit) == ('PASS', '3 passed', 'abc')
    assert str(build.folder / 'work/thing') in (build.folder / 'thing.log').read_text()
    assert not (build.folder / 'work/thing').exists()


@pytest.mark.parametrize(
    ('code', 'detail'),
    [
        ("print('error: no such thing'); print('see above'); exit(1)", 'error: no such thing'),
        ('raise KeyError(5)', 'KeyError: 5'),
        ("print('FAILED ../../x/tests/a.py::b - c\\nFAILED tests/d::e'); exit(1)",
         'FAILED tests/a.py::b - c'),
        ('exit(3)', "$ python -c 'exit(3)'"),
    ],
)  # fmt: skip
def test_check_that_fails_says_why_and_ends_there(build, code, detail):
    second = f"{PYTHON} \"open('{build.folder}/second', 'w')\""
    result = run(build, f'python -c {json.dumps(code)}', second)
    assert result.status == 'FAIL'
    assert result.detail.startswith(detail)
    assert not (build.folder / 'second').exists()


def test_check_that_takes_too_long(build):
    result = run(build, f'{PYTHON} "import time; time.sleep(60)"', minutes=0)
    assert (result.status, result.detail) == ('FAIL', 'error: not done within 0 minutes')
    assert result.seconds < 30


def test_interrupted_check_leaves_nothing_running(build):
    """Nor a result: it is run again."""
    code = 'import os, signal, time; print(os.getpid(), flush=True); '
    code += 'os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)'
    before = signal.signal(signal.SIGTERM, matrix.stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(build, f'{PYTHON} "{code}"')
    finally:
        signal.signal(signal.SIGTERM, before)
    pid = int((build.folder / 'thing.log').read_text().split()[-1])
    state = Path(f'/proc/{pid}/stat')
    assert not state.exists() or ') Z ' in state.read_text()  # nobody waits for it


def test_check_without_what_it_needs(build):
    result = run(build, f'{PYTHON} 1', needs=('json', 'no_such.ops', 'neither'))
    assert (result.status, result.detail) == ('cannot', 'needs operators of no_such and neither')
    assert run(build, f'{PYTHON} 1', name='never').detail == 'no such thing'


def test_nothing_is_written_into_the_checkout_and_nothing_else_is_imported(build, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', '/somewhere')
    code = "import os; e = os.environ; print(e['PYTHONPATH'], e['PYTHONDONTWRITEBYTECODE'])"
    assert run(build, f'{PYTHON} "{code}"').status == 'PASS'
    assert '/somewhere' not in (build.folder / 'thing.log').read_text().partition('\n')[2]


def test_what_passed_for_this_commit_is_not_run_again():
    items = [check(name=name) for name in 'abcd']
    done = {
        'a': dict(status='PASS', commit='1'),
        'b': dict(status='PASS', commit='2'),
        'c': dict(status='FAIL', commit='1'),
    }

    def names(now, again=False):
        return ''.join(c.name for c in matrix.to_run(items, {'checks': done}, now, again))

    assert names('1') == 'bcd'
    assert names('1', again=True) == 'abcd'
    done['a']['commit'] = '1+'  # files differed, and may differ otherwise now
    assert names('1+') == 'abcd'


def test_build_is_made_once_and_anew_when_its_list_changes(build):
    assert not build.finished
    build.stamp.write_text(json.dumps(matrix.asdict(build.environment), sort_keys=True))
    assert build.finished
    other = matrix.Environment('now', 'this one', '3.11', ('numpy==1.24',))
    assert not matrix.Build(other, build.folder).finished


def test_step_of_a_build_that_fails(build):
    with pytest.raises(RuntimeError, match=r'exit.*: ERROR: no network \(.*build\.log\)'):
        build.call(sys.executable, '-c', 'print("ERROR: no network"); exit(1)')
    with pytest.raises(matrix.Impossible, match=r'no Python 3\.99 on this machine'):
        matrix.find_python('3.99')


def test_one_run_at_a_time(build):
    build.lock()
    with pytest.raises(matrix.Impossible, match='another run'):
        matrix.Build(build.environment, build.folder).lock()


def test_mmcv_comes_from_a_wheel_where_there_is_one(build, monkeypatch):
    calls = []
    monkeypatch.setattr(build, 'call', lambda *words, **_: calls.append(' '.join(map(str, words))))
    build.environment = matrix.read_lists()[0]['torch2.4']
    build.install_mmcv()
    assert len(calls) == 2
    assert '--only-binary mmcv --find-links' in calls[0]
    assert 'python3.11-torch==2.4.1' in calls[0]
    assert calls[1].endswith('-c import mmcv.ops')


def test_table():
    environments, checks = matrix.read_lists()
    passed = dict(status='PASS', seconds=75.2, detail='', date='2026-01-02', commit='1')
    cannot = {**passed, 'status': 'cannot', 'detail': 'needs mmdet'}
    failed = {**passed, 'status': 'FAIL', 'detail': 'KeyError', 'date': '2026-01-03'}
    results = {
        'torch2.1': dict(
            versions={'Python': '3.11.7', 'mmcv': 'mmcv 2.1.0', 'mmseg': 'mmsegmentation 1.2.2'},
            checks={'demo': {**passed, 'seconds': 600}, 'mim': failed},
        ),
        'onedl': dict(
            versions={'mmcv': 'onedl-mmcv 2.3.6'}, checks={'demo': cannot, 'mim': cannot}
        ),
        'oldest': dict(versions={}, checks={}),
    }
    text = matrix.table(results)
    rows = [[c.strip() for c in line.split('|')[1:-1]] for line in text.splitlines() if '|' in line]
    assert {len(row) for row in rows} == {3}
    assert rows[0][1:] == [environments[name].title for name in ('torch2.1', 'onedl')]
    cells = {row[0]: row[1:] for row in rows}
    assert cells['mmcv'] == ['2.1.0', 'onedl-mmcv 2.3.6']
    assert cells['mmseg'] == ['1.2.2', '-']
    assert cells[checks['demo'].title] == ['yes (10 min)', 'no [1]']
    assert cells[checks['mim'].title] == ['**fails** [2]', 'no [1]']
    assert cells[checks['golden'].title] == ['not run', 'not run']
    assert cells['last run'] == ['2026-01-03', '2026-01-02']
    assert text.endswith('\n\n1. needs mmdet\n2. KeyError\n')


def test_results_are_merged_into_the_page(tmp_path, monkeypatch):
    page, record = tmp_path / 'page.md', tmp_path / 'matrix.json'
    page.write_text(f'before\n{matrix.BEGIN}old\n{matrix.END}\nafter\n')
    monkeypatch.setattr(matrix, 'PAGE', page)
    monkeypatch.setattr(matrix, 'RECORD', record)
    passed = dict(status='PASS', seconds=1, detail='', date='2026-01-02', commit='1')
    for name in ('golden', 'demo'):
        matrix.write_docs({'oldest': {'versions': {}, 'checks': {name: passed}}})
    assert list(json.loads(record.read_text())['oldest']['checks']) == ['golden', 'demo']
    before, _, rest = page.read_text().partition(matrix.BEGIN)
    assert (before, rest.endswith(f'{matrix.END}\nafter\n')) == ('before\n', True)
    assert rest.count('yes (1 s)') == 2
    assert 'old\n' not in rest


def test_page_has_the_recorded_results():
    block = matrix.PAGE.read_text().partition(matrix.BEGIN)[2].partition(matrix.END)[0]
    assert block == matrix.table(json.loads(matrix.RECORD.read_text()))


def test_names_that_do_not_exist(capsys):
    for words, said in ((['torch9'], 'no environment torch9'), (['--only', 'x'], 'no check x')):
        with pytest.raises(SystemExit):
            matrix.main(words)
        assert f'{said}; there are ' in capsys.readouterr().err


def test_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(matrix, 'find_python', lambda version: f'/usr/bin/python{version}')
    assert matrix.main(['torch2.4', 'onedl', '--dry-run', '--only', 'heads']) == 0
    out = capsys.readouterr().out
    assert 'install: torch==2.4.1 torchvision==0.19.1' in out
    assert 'install: mmcv==2.2.0, from PIP_FIND_LINKS, or built' in out
    assert 'install: bash tools/setup.sh' in out
    assert out.count('heads: python ./tools/dev/stack_runs.py') == 2
    assert not list(tmp_path.iterdir())


def test_plugin_skips_what_is_not_installed(tmp_path):
    (tmp_path / 'test_a.py').write_text(
        'import pytest\n'
        '@pytest.fixture\ndef net():\n    import mmcv_is_not_here\n'
        'def test_x(net): ...\n'
        'def test_y(): import no_such_package\n'
        'def test_z(): ...\n'
    )
    (tmp_path / 'test_b.py').write_text('import mmcv_is_not_here.ops\n')
    code = 'import sys, skip_missing, pytest; skip_missing.PACKAGES = ("mmcv_is_not_here",)\n'
    code += 'sys.exit(pytest.main(["-q", "-ra", "-p", "no:cacheprovider", "-n0"], [skip_missing]))'
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        env={**matrix.clean(), 'PYTHONPATH': str(ROOT / 'tools/dev/pytest_plugin')},
        capture_output=True,
        text=True,
    )
    assert re.search('1 failed, 1 passed, 2 skipped', done.stdout), done.stdout
    assert 'SKIPPED [2] .:0: needs mmcv_is_not_here' in done.stdout
    assert 'FAILED test_a.py::test_y' in done.stdout
