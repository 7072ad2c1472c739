"""What runs elsewhere: workflows, images, and the check of a release. Here it is only read."""

import importlib.util
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

tomllib = pytest.importorskip('tomllib', reason='Python 3.11 reads pyproject.toml')
ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))
IMAGES = sorted((ROOT / 'docker').glob('Dockerfile*'))
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
spec = importlib.util.spec_from_file_location('check', ROOT / 'tools/dev/check_release.py')
check_release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_release)


def assert_commands_exist(text):
    """The text is valid for bash, and what it names of this project is there."""
    done = subprocess.run(['bash', '-n'], input=text, capture_output=True, text=True)
    assert done.returncode == 0, f'{text}\n{done.stderr}'
    for word in re.findall(r'(?<![\w./-])(?:\.ci|tools|docs|docker|tests)/[\w./*-]+', text):
        assert (ROOT / word).is_file(), f'{text}: no file {word}'
    setup = (ROOT / 'tools/setup.sh').read_text()
    for name, value in re.findall(r'\b(SETUP_\w+|MMCV_\w+|TORCH_SPEC)=(\S*)', text):
        assert f'#     {name} ' in setup, f'{text}: tools/setup.sh does not know {name}'
        if name == 'SETUP_EXTRAS':
            assert set(value.split(',')) <= set(PROJECT['project']['optional-dependencies'])


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow['permissions'] == {'contents': 'read'}
    for name, job in workflow['jobs'].items():
        needs = job.get('needs', [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(workflow['jobs']), name
        if 'uses' in job:
            called = yaml.safe_load((ROOT / job['uses']).read_text())
            assert 'workflow_call' in called[True]  # YAML's reading of `on`
            continue
        assert job['timeout-minutes'] and job['runs-on'] != 'ubuntu-latest'
        for step in job['steps']:
            if 'run' in step:
                assert '${{' not in step['run'], 'text of others could become a command'
                assert_commands_exist(step['run'])
            else:
                assert re.fullmatch(r'[\w/-]+@(v\d+|release/v\d+)', step['uses']), step['uses']
            if 'checkout' in step.get('uses', ''):
                assert step['with']['persist-credentials'] is False
            for pattern in re.findall(r'hashFiles\((.+?)\)', str(step.get('with', ''))):
                for glob in re.findall(r"'([^']+)'", pattern):
                    assert list(ROOT.glob(glob)), f'{path.name}: no file {glob}'


def test_only_checked_releases_are_published():
    """After all tests, and with rights that no step of the project's own code has."""
    workflow = yaml.safe_load((ROOT / '.github/workflows/release.yml').read_text())
    assert workflow[True] == {'push': {'tags': ['v*']}}
    jobs = workflow['jobs']
    publishing = {name for name, job in jobs.items() if 'permissions' in job}
    assert publishing == {'publish-packages', 'publish-documentation'}
    assert set(jobs['publish-packages']['needs']) == set(jobs) - publishing
    assert jobs['publish-documentation']['needs'] == 'publish-packages'
    for name in publishing:
        assert not [step for step in jobs[name]['steps'] if 'run' in step]
        assert jobs[name]['environment']
    commands = [step.get('run', '') for step in jobs['packages']['steps']]
    assert any('check_release.py "$GITHUB_REF_NAME"' in command for command in commands)


def instructions(path):
    """The instructions of a Dockerfile, each with its arguments on one line."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith('#')]
    return [line.split(None, 1) for line in '\n'.join(lines).replace('\\\n', ' ').splitlines()]


@pytest.mark.parametrize('path', IMAGES, ids=lambda path: path.name)
def test_image(path):
    found = instructions(path)
    stages = [position for position, (name, _) in enumerate(found) if name == 'FROM']
    assert len(stages) == 2
    for name, text in found:
        if name == 'RUN':
            assert_commands_exist(re.sub(r'^--mount=\S+', '', text))
        elif name == 'ENV':
            assert_commands_exist(f'export {text}')
    last = found[stages[1] :]
    assert ['USER', '${UID}'] in last
    assert not [text for _, text in last if 'apt-get' in text or ' pip ' in text]
    assert [text for name, text in last if name == 'COPY'] == ['--from=build /opt /opt']
    python = re.search(r'^ARG PYTHON=(\S+)', path.read_text(), re.MULTILINE)[1]
    assert f'Programming Language :: Python :: {python}' in PROJECT['project']['classifiers']


def test_images_get_what_the_wheel_is_made_from():
    lines = (ROOT / '.dockerignore').read_text().split()
    kept = {line[1:] for line in lines if line.startswith('!')}
    assert lines[0] == '*'
    assert all((ROOT / name).exists() for name in kept)
    needed = {*PROJECT['tool']['hatch']['build']['targets']['wheel']['only-include']}
    needed |= {'LICENSE', 'README.md', 'hatch_build.py', 'model-index.yml', 'pyproject.toml'}
    assert kept == needed
    assert fnmatch('hybrid_mm/__pycache__', lines[-1].replace('**', '*'))


@pytest.fixture
def release(tmp_path):
    """A function that gives what the check says of files like ours with changes."""

    def check(tag='v1.2.0', **changes):
        files = {
            'hybrid_mm/version.py': "__version__ = '1.2.0'\n",
            'CITATION.cff': 'cff-version: 1.2.0\nversion: 1.2.0\n',
            'CHANGELOG.md': '# Changelog\n\n## 1.2.0 (2027-01-31)\n\n## 1.1.0 (2026-12-01)\n',
        }
        for name, (old, new) in changes.items():
            file = next(file for file in files if name in file)
            assert old in files[file]
            files[file] = files[file].replace(old, new)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        git = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b.invalid']
        for words in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'all']):
            subprocess.run([*git, *words], check=True)
        if tag == 'not committed':
            (tmp_path / 'other').touch()
        return check_release.problems(tmp_path, tag if tag.startswith('v') else None)

    return check


def test_release_that_agrees(release):
    assert release() == []


def test_exit_status(monkeypatch, capsys):
    for lines, status in ([], 0), (['a', 'b'], 1):
        monkeypatch.setattr(check_release, 'problems', lambda root, tag, lines=lines: lines)
        assert check_release.main(['v1.2.0']) == status
        assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize(
    'tag, changes, expected',
    [
        ('v1.2.1', {}, 'tag: v1.2.1 instead of v1.2.0'),
        ('', {'CITATION': ('\nversion: 1.2.0', '\nversion: 1.1.0')}, 'CITATION.cff: version 1.1.0'),
        ('', {'CITATION': ('\nversion: 1.2.0', '')}, 'CITATION.cff: version is missing'),
        (
            '',
            {'CHANGELOG': ('2027-01-31', 'unreleased')},
            'CHANGELOG.md: first section "1.2.0 (unr',
        ),
        ('', {'CHANGELOG': ('1.2.0', '1.3.0')}, 'CHANGELOG.md: first section "1.3.0 (2027-01-31)"'),
        ('not committed', {}, 'not committed: other'),
    ],
)
def test_release_that_does_not_agree(release, tag, changes, expected):
    (line,) = release(tag or 'v1.2.0', **changes)
    assert line.startswith(expected)
