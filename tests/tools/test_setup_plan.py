"""What set-up chooses: against an index on loopback, fake Pythons and folders of wheels."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from ..conftest import ROOT, load_tool

plan = load_tool('setup_plan')
wheels = sys.modules['setup_wheels']
Interpreter = plan.Interpreter
P310, P311, P312 = (
    Interpreter(f'/usr/bin/python3.{minor}', (3, minor), f'3.{minor}.1') for minor in (10, 11, 12)
)
ALL = [P312, P311, P310]


class Index:
    """Pages on loopback; `slow` and `status` say how the server treats a path."""

    def __init__(self):
        self.pages, self.slow, self.status = {}, {}, {}
        self.headers = {}
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                index.headers[self.path] = dict(self.headers)
                time.sleep(index.slow.get(self.path, 0))
                text = index.pages.get(self.path)
                self.send_response(index.status.get(self.path, 404 if text is None else 200))
                self.end_headers()
                self.wfile.write((text or '').encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # who asked no longer listens
        self.url = f'http://127.0.0.1:{self.server.server_port}'
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def list(self, path, *names):
        self.pages[path] = ''.join(f'<a href="{name}">{name}</a><br>\n' for name in names)

    def mmcv(self, **groups):
        """The layout of OneDL's index: GROUP/simple/onedl-mmcv/, with Pythons per group."""
        self.list('/mm/', *(f'/mm/{group.replace("_", "-")}/simple' for group in groups))
        for group, minors in groups.items():
            folder = f'/mm/{group.replace("_", "-")}/simple/onedl-mmcv/'
            self.list(folder, *(mmcv_name(f'cp3{minor}') for minor in minors))

    def torch(self, folder, *versions, minors=(10, 11, 12), vision=True):
        """torch, and the torchvision of each."""
        names, others = [], []
        for version in versions:
            number, plus, local = version.partition('+')
            other = f'0.{int(number.split(".")[1]) + 15}.0{plus}{local}'
            for minor in minors:
                tags = f'cp3{minor}-cp3{minor}-manylinux_2_28_x86_64.whl'
                names.append(f'torch-{version.replace("+", "%2B")}-{tags}')
                others.append(f'torchvision-{other.replace("+", "%2B")}-{tags}')
        self.list(f'/{folder}/torch/', *names)
        if vision:
            self.list(f'/{folder}/torchvision/', *others)


def mmcv_name(python, version='2.3.6', platform='manylinux_2_28_x86_64'):
    return f'onedl_mmcv-{version}-{python}-{python}-{platform}.whl'


@pytest.fixture
def index():
    found = Index()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def choose(index):
    """The plan for what the index has and what is given."""

    def run(pip=None, limit=5.0, total=5.0, **given):
        settings = wheels.PipSettings(
            {'PIP_CONFIG_FILE': os.devnull, 'PIP_INDEX_URL': f'{index.url}/pypi', **(pip or {})}
        )
        given = {
            'pythons': ALL,
            'mmcv': '>=2.3.6,<2.4',
            'torch': '>=2.6',
            'mmcv_index': f'{index.url}/mm',
            'torch_index': f'{index.url}/whl',
            'minutes': 'about 17 minutes with 2 compilers',
            **given,
        }
        web = wheels.Web(settings, limit, total)
        return plan.Chooser(plan.Situation(**given), settings, web).plan()

    return run


# --- Python and torch after the wheels ------------------------------------------------------------


@pytest.mark.parametrize(
    ('pythons', 'python', 'torch', 'group'),
    [
        (ALL, P312, '2.12.1', 'cpu-torch2120'),
        ([P311, P310], P311, '2.9.0', 'cpu-torch290'),
        ([P310], P310, '2.12.1', 'cpu-torch2120'),
    ],
)
def test_newest_torch_with_a_wheel_on_the_preferred_python(
    index, choose, pythons, python, torch, group
):
    index.mmcv(cpu_torch290=(10, 11, 12), cpu_torch2120=(10, 12, 13), cu130_torch2140=(10, 11, 12))
    index.torch('pypi', '2.9.0', '2.12.0', '2.12.1', '2.14.1')
    found = choose(pythons=pythons)
    assert (found.python, found.torch) == (python, f'torch=={torch} torchvision')
    assert found.wheel.place == f'{index.url}/mm/{group}/simple/onedl-mmcv/'
    assert found.wheel.kind == 'onedl' and found.index_answers
    said = '\n'.join(found.lines)
    assert f'torch {torch}' in said and group in said and 'newest torch with a wheel' in said
    assert len(found.lines) == 2 and 'minutes' not in said


def test_only_index_html_is_served(index, choose):
    index.mmcv(cpu_torch2120=())
    index.list('/mm/cpu-torch2120/simple/onedl-mmcv/index.html', mmcv_name('cp312'))
    index.torch('pypi', '2.12.0')
    assert choose().wheel.place.endswith('/onedl-mmcv/index.html')


def test_constraint_of_pip_is_kept(index, choose, tmp_path):
    index.mmcv(cpu_torch290=(12,), cpu_torch2120=(12,))
    index.torch('pypi', '2.9.0', '2.9.1', '2.12.0')
    limit = tmp_path / 'limits.txt'
    limit.write_text('# no newer ones\nnumpy<2\nTorch <= 2.9.0 ; python_version > "3"\n')
    assert choose(dict(PIP_CONSTRAINT=str(limit))).torch == 'torch==2.9.0 torchvision'
    limit.write_text('torch<=2.5\n')
    with pytest.raises(wheels.SetupError, match=r'no torch>=2\.6 for Python 3\.12.*<=2\.5'):
        choose(dict(PIP_CONSTRAINT=str(limit)))


def test_cpu_build_of_torch_comes_with_its_torchvision(index, choose):
    index.mmcv(cpu_torch2120=(12,))
    index.torch('pypi', '2.12.0', '2.14.1')
    index.torch('whl/cpu', '2.12.0+cpu', '2.14.1+cpu', '2.14.1+cu130')
    cpu = f'torch==2.12.0+cpu torchvision --extra-index-url {index.url}/whl/cpu'
    assert choose().torch == cpu
    assert choose(gpu=(13, 0), mmcv_cpu_only=True).torch == 'torch==2.12.0 torchvision'
    # PyPI's torchvision does not load with it.
    index.torch('whl/cpu', '2.12.0+cpu', vision=False)
    del index.pages['/whl/cpu/torchvision/']
    found = choose()
    assert found.torch == 'torch==2.12.0 torchvision' and 'no CPU build' in found.lines[0]


def test_cpu_build_in_a_folder(index, choose, tmp_path):
    """Without wheel of mmcv: the CPU build that is there rather than gigabytes of CUDA."""
    index.torch('pypi', '2.14.1')
    tags = 'cp311-cp311-manylinux_2_28_x86_64.whl'
    (tmp_path / f'torch-2.13.0+cpu-{tags}').touch()
    pip = dict(PIP_FIND_LINKS=str(tmp_path))
    assert choose(pip, pythons=[P311]).torch == 'torch torchvision'
    (tmp_path / f'torchvision-0.28.0+cpu-{tags}').touch()
    assert choose(pip, pythons=[P311]).torch == 'torch==2.13.0+cpu torchvision'
    # A wheel that does not say for which torch it is will be for the newest.
    (tmp_path / mmcv_name('cp311')).touch()
    assert choose(pip, pythons=[P311]).torch == 'torch torchvision'


def test_wheel_that_pip_is_pointed_to_comes_first(index, choose, tmp_path):
    index.mmcv(cpu_torch2120=(12,))
    index.torch('pypi', '2.12.0', '2.14.1')
    path = tmp_path / mmcv_name('cp311', platform='linux_x86_64')
    path.touch()
    for place in (tmp_path, path, tmp_path.as_uri()):
        found = choose(dict(PIP_FIND_LINKS=f'/not/there {place}'))
        assert (found.python, found.torch) == (P311, 'torch torchvision')
        assert str(tmp_path) in found.lines[0]
        assert 'does not say for which torch' in found.lines[1] and '17 minutes' in found.lines[1]


def test_copy_of_the_index_in_a_folder_says_the_torch(index, choose, tmp_path):
    folder = tmp_path / 'cpu-torch290/simple/onedl-mmcv'
    folder.mkdir(parents=True)
    (folder / mmcv_name('cp312')).touch()
    index.torch('pypi', '2.9.1', '2.14.1')
    assert choose(dict(PIP_FIND_LINKS=str(folder))).torch == 'torch==2.9.1 torchvision'
    assert choose(mmcv_index=tmp_path.as_uri()).torch == 'torch==2.9.1 torchvision'


def test_wheel_built_here_before_comes_before_the_index(index, choose, tmp_path):
    index.mmcv(cpu_torch2120=(12,))
    index.torch('pypi', '2.12.0', '2.13.0', '2.14.1')
    folder = tmp_path / 'cp311-torch2.13.0+cu130-cpu-x86_64'
    folder.mkdir()
    (folder / mmcv_name('cp311', platform='linux_x86_64')).touch()
    found = choose(cache=str(tmp_path))
    assert (found.python, found.torch) == (P311, 'torch==2.13.0 torchvision')
    assert choose(cache=str(tmp_path), gpu=(13, 0)).wheel is None  # its operators are for CPUs


@pytest.mark.parametrize(
    'name',
    [
        mmcv_name('cp39'),
        mmcv_name('cp313'),
        mmcv_name('cp312', '2.2.0'),
        mmcv_name('cp312', '2.4.0'),
        mmcv_name('cp312', '2.3.7rc1'),
        mmcv_name('cp312', platform='win_amd64'),
        mmcv_name('cp312', platform='manylinux_2_28_aarch64'),
        mmcv_name('cp312', platform='manylinux_2_34_x86_64'),
        'onedl_mmcv-2.3.6.tar.gz',
        'onedl_mmcv-cp312.whl',
        f'{mmcv_name("cp312")}" data-yanked="broken',
    ],
)
def test_wheel_for_something_else_is_no_wheel(index, choose, name):
    index.mmcv(cpu_torch2120=())
    index.list('/mm/cpu-torch2120/simple/onedl-mmcv/', name)
    index.torch('pypi', '2.12.0', '2.14.1')
    found = choose(glibc=(2, 31))
    assert found.wheel is None and found.python == P312 and found.torch == 'torch torchvision'
    assert 'about 17 minutes with 2 compilers' in found.lines[1]


def test_build_takes_a_python_that_can_compile(index, choose):
    index.torch('pypi', '2.14.1')
    bare = Interpreter('/opt/python3.12', (3, 12), '3.12.9', headers=False)
    assert choose(pythons=[bare, P311]).python == P311
    assert choose(pythons=[bare]).python == bare


@pytest.mark.parametrize(
    ('given', 'group'),
    [
        (dict(installed='2.9.1'), 'cpu-torch290'),
        (dict(installed='2.12.0+cpu'), 'cpu-torch2120'),
        (dict(installed='2.14.1'), None),
        (dict(installed='2.12.0+cu126', gpu=(13, 0)), 'cu126-torch2120'),
        (dict(installed='2.12.0+cu128', gpu=(13, 0)), None),
        (dict(torch_spec='torch==2.9.0 torchvision'), 'cpu-torch290'),
        (dict(torch_spec='torchvision torch==2.12.* --pre'), 'cpu-torch2120'),
        (dict(torch_spec='torch torchvision --index-url http://x'), None),
    ],
)
def test_torch_that_was_given_wins(index, choose, given, group):
    minors = (10, 12)
    index.mmcv(cpu_torch290=minors, cpu_torch2120=minors, cu126_torch2120=minors)
    found = choose(**given)
    assert (found.wheel.place.split('/')[4] if found.wheel else None) == group
    assert found.torch == given.get('torch_spec', '')
    assert found.python == P312
    assert (group is None) == ('17 minutes' in found.lines[1])


@pytest.mark.parametrize(
    ('driver', 'group'),
    [
        ((13, 0), 'cu130-torch2120'),
        ((12, 4), 'cu126-torch2120'),  # minor releases of CUDA are compatible
        ((0, 0), 'cu130-torch2120'),
        ((11, 8), None),
    ],
)
def test_gpu(index, choose, driver, group):
    groups = dict.fromkeys(('cpu_torch2140', 'cu126_torch2120', 'cu130_torch2120'), (12,))
    index.mmcv(**groups)
    index.torch('pypi', '2.12.0', '2.14.1')
    index.torch('whl/cu130', '2.12.0+cu130')
    index.torch('whl/cu126', '2.12.0+cu126')
    found = choose(gpu=driver)
    if group is None:
        assert found.wheel is None and found.torch == 'torch torchvision'
        return
    label = group.split('-')[0]
    extra = f'--extra-index-url {index.url}/whl/{label}'
    assert found.torch == f'torch==2.12.0+{label} torchvision {extra}'
    assert group in found.lines[0]


def test_cuda_of_the_torch_on_pypi_is_looked_up(index, choose):
    index.mmcv(cu126_torch2120=(12,), cu130_torch2120=(12,))
    index.torch('pypi', '2.12.0')
    metadata = 'Requires-Dist: numpy\nRequires-Dist: cuda-toolkit[cudart,nvrtc]==12.6.2; x\n'
    name = 'torch-2.12.0-cp312-cp312-manylinux_2_28_x86_64.whl.metadata'
    index.pages[f'/pypi/torch/{name}'] = metadata
    assert 'cu126' in choose(gpu=(13, 0)).lines[0]
    index.pages[f'/pypi/torch/{name}'] = 'Requires-Dist: nvidia-cuda-runtime-cu12==12.8.90\n'
    assert choose(gpu=(13, 0)).wheel is None
    del index.pages[f'/pypi/torch/{name}']  # not known: it is tried
    assert choose(gpu=(13, 0)).wheel is not None


def test_cuda_of_a_torch_in_a_folder(tmp_path):
    path = tmp_path / 'torch-2.8.0-cp312-cp312-linux_x86_64.whl'
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr(
            'torch-2.8.0.dist-info/METADATA', 'Requires-Dist: nvidia-cuda-runtime-cu12==12.8.90\n'
        )
    web = wheels.Web(wheels.PipSettings({'PIP_CONFIG_FILE': os.devnull}))
    assert plan.cuda_of(wheels.parse_wheel(path.as_uri(), ''), web) == 'cu128'
    path.write_text('no archive')
    assert plan.cuda_of(wheels.parse_wheel(path.as_uri(), ''), web) == ''


# --- an index that does not behave ----------------------------------------------------------------


@pytest.mark.parametrize('page', ['/mm/', '/mm/cpu-torch2120/simple/onedl-mmcv/', '/pypi/torch/'])
def test_slow_answers(index, choose, page):
    index.mmcv(cpu_torch2120=(12,))
    index.torch('pypi', '2.12.0')
    index.slow[page] = 10
    start = time.monotonic()
    found = choose(limit=1.0, total=1.5)
    assert time.monotonic() - start < 4
    if page == '/pypi/torch/':  # pip may get an answer where there was no time for one
        assert found.wheel and found.torch == 'torch==2.12.* torchvision'
    else:
        assert found.wheel is None and found.torch == 'torch torchvision'
    if page == '/mm/':
        assert 'not reached: 127.0.0.1 (no answer within 1 s)' in found.lines
        assert not found.index_answers


@pytest.mark.parametrize('behaviour', ['silent', 'drips', 'hangs up', 'refuses'])
def test_server_that_does_not_speak(choose, index, behaviour):
    index.torch('pypi', '2.14.1')
    server = socket.create_server(('127.0.0.1', 0))
    port = server.getsockname()[1]
    end = threading.Event()

    def serve():
        while not end.is_set():
            try:
                connection = server.accept()[0]
            except OSError:
                return
            if behaviour == 'drips':
                connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n')
                while not end.wait(0.05):
                    try:
                        connection.sendall(b'<')
                    except OSError:
                        break
            elif behaviour == 'silent':
                end.wait()
            connection.close()

    if behaviour == 'refuses':
        server.close()
    else:
        threading.Thread(target=serve, daemon=True).start()
    start = time.monotonic()
    found = choose(limit=0.4, total=0.8, mmcv_index=f'http://127.0.0.1:{port}')
    assert time.monotonic() - start < 2
    end.set()
    server.close()
    assert found.wheel is None and not found.index_answers
    assert any(line.startswith('not reached: 127.0.0.1 (') for line in found.lines)


@pytest.mark.parametrize('status', [403, 500, 404])
def test_errors_of_the_index(index, choose, status):
    index.mmcv(cpu_torch2120=(12,))
    index.status['/mm/'] = status
    index.pages['/mm/'] = ''
    index.torch('pypi', '2.14.1')
    found = choose()
    assert found.wheel is None and found.index_answers == (status == 404)
    assert any(f'HTTP error {status}' in line for line in found.lines) == (status != 404)


@pytest.mark.parametrize(
    'text',
    [
        '<<<a href=<a <html',
        '<a href="http://[broken/onedl_mmcv-2.3.6-cp312-cp312-linux_x86_64.whl">x',
        '{"files": [{"nothing": 1}]}',
        '{"files"',
        '\0\xff' * 100,
        '<a href=/mm/cpu-torch1/simple>x</a><a href>y</a><a name=z>',
        '<!DOCTYPE html' + '<![CDATA[' * 3,
    ],
)
def test_broken_pages(index, choose, text):
    index.pages['/mm/'] = text
    index.torch('pypi', '2.14.1')
    found = choose()
    assert found.wheel is None and found.torch == 'torch torchvision'
    good = '/mm/cpu-torch2120/simple/onedl-mmcv/'
    index.mmcv(cpu_torch2120=(12,))
    index.torch('pypi', '2.12.0')
    index.pages[good] = text + '<a href=x.whl></p>' + index.pages[good]
    if not text.startswith(('<!', '<<', '{"files": [')):  # what follows those is part of them
        assert choose().wheel


def test_pages_in_json_and_passwords(index, choose):
    """PyPI's JSON; user and password of an index are sent, and never shown."""
    index.mmcv(cpu_torch2120=(12,))
    tags = 'cp312-cp312-manylinux_2_28_x86_64.whl'
    files = [
        dict(url=f'../../files/torch-2.12.{patch}-{tags}', yanked=patch == 2) for patch in range(3)
    ]
    index.pages['/pypi/torch/'] = json.dumps(dict(files=files))
    secret = index.url.replace('//', '//me:p%40ss@')
    found = choose(dict(PIP_INDEX_URL=f'{secret}/pypi/'))
    assert found.torch == 'torch==2.12.1 torchvision'
    assert index.headers['/pypi/torch/']['Authorization'] == 'Basic bWU6cEBzcw=='
    index.status['/pypi/torch/'] = index.status['/pypi/onedl-mmcv/'] = 401
    index.status['/mm/'] = 500
    said = '\n'.join(choose(dict(PIP_INDEX_URL=f'{secret}/pypi/')).lines)
    assert '127.0.0.1 (HTTP error' in said and 'ss@' not in said


def test_proxy_is_used(index, choose, monkeypatch):
    index.torch('pypi', '2.14.1')
    monkeypatch.setenv('http_proxy', index.url)
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    index.list('http://wheels.example/mm/', 'cpu-torch2140/simple')
    page = 'http://wheels.example/mm/cpu-torch2140/simple/onedl-mmcv/'
    index.list(page, mmcv_name('cp312'))
    assert choose(mmcv_index='http://wheels.example/mm').wheel.place == page
    monkeypatch.delenv('http_proxy')
    found = choose(dict(PIP_PROXY=index.url), mmcv_index='http://wheels.example/mm')
    assert found.wheel.place == page


# --- versions and settings ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('version', 'specifiers', 'fits'),
    [
        ('2.12.0', '', True),
        ('2.12', '==2.12.0', True),
        ('2.12.0+cpu', '==2.12.0', True),
        ('2.12.0+cpu', '==2.12.0+cu130', False),
        ('2.12.1', '==2.12.*', True),
        ('2.1.2', '==2.12.*', False),
        ('2.14.1+cpu', '<=2.14.1', True),
        ('2.9.0', '>=2.12', False),
        ('2.3.6.post1', '>=2.3.6,<2.4', True),
        ('2.3.6rc1', '>=2.3.6', False),
        ('2.4.0', '>=2.3.6, <2.4', False),
        ('2.3.9', '~=2.3.6', True),
        ('2.4.0', '~=2.3.6', False),
        ('2.4.0', '~=2.3', True),
        ('2.12.0', '!=2.12.0', False),
        ('2.12.1', '>2.12,not understood', True),
    ],
)
def test_versions(version, specifiers, fits):
    assert wheels.satisfies(wheels.parse_version(version), specifiers) == fits


def test_pip_settings(tmp_path):
    (tmp_path / '.config/pip').mkdir(parents=True)
    (tmp_path / 'xdg/pip').mkdir(parents=True)
    (tmp_path / 'env').mkdir()
    (tmp_path / 'xdg/pip/pip.conf').write_text(
        '[global]\nindex-url = https://a/simple/\nfind-links =\n  /x\n  /y\ntimeout = 3\n'
        '[install]\nextra_index_url = https://b/simple\n[list]\nformat = json\n'
    )
    (tmp_path / '.config/pip/pip.conf').write_text('[global]\nindex-url = https://c/simple\n')
    (tmp_path / 'env/pip.conf').write_text('[global]\nconstraint = limits.txt\n')
    environ = {'HOME': str(tmp_path), 'XDG_CONFIG_DIRS': str(tmp_path / 'xdg')}
    settings = wheels.PipSettings(environ, str(tmp_path / 'env'))
    assert settings.indexes == ['https://c/simple', 'https://b/simple']
    assert settings.words('find-links') == ['/x', '/y']
    settings = wheels.PipSettings(environ | {'PIP_FIND_LINKS': '/z', 'PIP_INDEX_URL': ' '})
    assert settings.words('find-links') == ['/z']  # the environment replaces, and is no addition
    assert settings.indexes[0] == 'https://c/simple'
    assert not wheels.PipSettings(environ | {'PIP_NO_INDEX': '1'}).indexes
    assert wheels.PipSettings(environ | {'PIP_CONFIG_FILE': os.devnull}).indexes == [wheels.PYPI]
    (tmp_path / '.config/pip/pip.conf').write_text('index-url = no section\n')
    with pytest.raises(wheels.SetupError, match=r'pip\.conf'):
        wheels.PipSettings(environ)


def test_pip_settings_for_uv():
    base = {'PIP_CONFIG_FILE': os.devnull, 'PIP_NO_INPUT': '1', 'PIP_DEFAULT_TIMEOUT': '99'}
    strategy = ['--index-strategy', 'unsafe-best-match']
    assert wheels.PipSettings(base).for_uv() == (strategy, '')
    given = {
        'PIP_FIND_LINKS': '/x /y',
        'PIP_CONSTRAINT': '/limits.txt',
        'PIP_INDEX_URL': 'https://a/simple',
        'PIP_EXTRA_INDEX_URL': 'https://b https://c',
        'PIP_NO_INDEX': 'false',
        'PIP_PRE': 'on',
    }
    words, reason = wheels.PipSettings(base | given).for_uv()
    assert reason == '' and ' '.join(words[2:]) == (
        '--find-links /x --find-links /y --constraint /limits.txt --index-url https://a/simple '
        '--extra-index-url https://b --extra-index-url https://c --pre'
    )
    words, reason = wheels.PipSettings(base | {'PIP_CLIENT_CERT': '/me.pem'}).for_uv()
    assert words == [] and 'client-cert = /me.pem' in reason


# --- the machine ----------------------------------------------------------------------------------


def fake_python(path, full, complete=1, headers=1, name='CPython'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{path}|{full}|{name}|{complete}|{headers}"\n')
    path.chmod(0o755)
    return str(path)


def test_pythons_of_the_machine(tmp_path):
    bin_, pyenv = tmp_path / 'bin', tmp_path / 'pyenv'
    fake_python(bin_ / 'python3.13', '3.13.0')
    old = fake_python(bin_ / 'python3', '3.9.2')
    fake_python(bin_ / 'python', '3.11.9', name='PyPy')
    ten = fake_python(bin_ / 'python3.10', '3.10.4')
    bare = fake_python(bin_ / 'python3.12', '3.12.3', complete=0)
    fake_python(pyenv / 'versions/3.11.4/bin/python3', '3.11.4')
    eleven = fake_python(pyenv / 'versions/3.11.10/bin/python3', '3.11.10')
    (pyenv / 'shims').mkdir()
    shim = pyenv / 'shims/python3.12'
    shim.write_text('#!/bin/sh\necho "pyenv: python3.12: command not found"; exit 127\n')
    shim.chmod(0o755)
    environ = {'PATH': f'{shim.parent}:{bin_}:/nowhere', 'PYENV_ROOT': str(pyenv)}
    (bin_ / 'python3.11').write_text('#!/bin/sh\nexit 1\n')
    (bin_ / 'python3.11').chmod(0o755)
    found = plan.find_pythons(environ)
    assert [python.path for python in found] == [bare, eleven, ten] and old not in found
    assert [python.complete for python in found] == [False, True, True]
    # One that can make environments comes before one of the same version that cannot.
    whole = fake_python(pyenv / 'versions/3.12.1/bin/python3', '3.12.1')
    environ['PATH'] = str(bin_)  # pyenv is not in use: its Pythons come last
    assert plan.find_pythons(environ)[0].path == whole
    fake_python(bin_ / 'python3.12', '3.12.3')
    assert plan.find_pythons(environ)[0].path == bare


@pytest.mark.skipif(
    sys.version_info[:2] not in plan.PYTHONS, reason='set-up does not support this Python'
)
def test_the_running_python_is_found():
    found = plan.look_at(sys.executable)
    assert found.full == '.'.join(map(str, sys.version_info[:3])) and found.complete


@pytest.mark.parametrize(
    ('text', 'environ', 'cuda'),
    [
        ('| NVIDIA-SMI 580.1  Driver Version: 580.1  CUDA Version: 13.0 |', {}, (13, 0)),
        ('| CUDA UMD Version: 12.8 |', {}, (12, 8)),
        ('| CUDA Version: 13.0 |', {'CUDA_VISIBLE_DEVICES': ''}, None),
        ('| CUDA Version: 13.0 |', {'CUDA_VISIBLE_DEVICES': '-1'}, None),
        ('| CUDA Version: 13.0 |', {'CUDA_VISIBLE_DEVICES': '0,1'}, (13, 0)),
        pytest.param(
            'No devices were found',
            {},
            None,
            marks=pytest.mark.skipif(Path('/dev/nvidia0').exists(), reason='has a GPU'),
        ),
    ],
)
def test_gpu_of_the_machine(tmp_path, monkeypatch, text, environ, cuda):
    path = tmp_path / 'nvidia-smi'
    path.write_text(f'#!/bin/sh\necho "{text}"\n')
    path.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert plan.find_gpu(environ) == cuda


def test_number_of_compilers(tmp_path, monkeypatch):
    """One per core of the container, as many as fit into its memory, or as the user says."""
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(16)))
    assert plan.compilers({}, False, str(tmp_path)) == 16
    (tmp_path / 'proc').mkdir()
    (tmp_path / 'proc/meminfo').write_text('MemTotal: 1 kB\nMemAvailable: 25165824 kB\n')
    assert plan.compilers({}, False, str(tmp_path)) == 12
    assert plan.compilers({}, True, str(tmp_path)) == 6  # nvcc takes twice the memory
    group = tmp_path / 'sys/fs/cgroup'
    group.mkdir(parents=True)
    (group / 'cpu.max').write_text('max 100000\n')
    (group / 'memory.max').write_text('max\n')
    assert plan.compilers({}, False, str(tmp_path)) == 12
    (group / 'memory.max').write_text(f'{10 << 30}\n')
    (group / 'memory.current').write_text(f'{3 << 30}\n')
    assert plan.compilers({}, False, str(tmp_path)) == 3
    (group / 'cpu.max').write_text('250000 100000\n')
    assert plan.compilers({}, False, str(tmp_path)) == 2
    (group / 'memory.max').write_text('1\n')
    assert plan.compilers({}, False, str(tmp_path)) == 1
    assert plan.compilers({'MAX_JOBS': '7'}, False, str(tmp_path)) == 7
    assert plan.minutes_of_build({'MAX_JOBS': '2'}, False) == 'about 17 minutes with 2 compilers'
    assert 'CUDA' in plan.minutes_of_build({'MAX_JOBS': '64'}, True)


# --- the whole ------------------------------------------------------------------------------------


@pytest.fixture
def command(index, tmp_path):
    """Environment of a machine with Python 3.12 and 3.11 and this index."""
    for minor in (11, 12):
        fake_python(tmp_path / f'bin/python3.{minor}', f'3.{minor}.5')
    return {
        'PATH': f'{tmp_path}/bin:/usr/bin:/bin',
        'HOME': str(tmp_path),
        'PYENV_ROOT': str(tmp_path / 'pyenv'),
        'CUDA_VISIBLE_DEVICES': '',
        'MMCV_BASE_URL': f'{index.url}/mm/',
        'TORCH_BASE_URL': f'{index.url}/whl/',
        'PIP_INDEX_URL': f'{index.url}/pypi',
        'PIP_CONFIG_FILE': os.devnull,
        'MAX_JOBS': '2',
    }


def ask(environ, *arguments):
    run = subprocess.run(
        [sys.executable, '-B', ROOT / 'tools/setup_plan.py', *arguments],
        env=environ,
        capture_output=True,
        text=True,
    )
    answers = {}
    for line in run.stdout.splitlines():
        key, value = line.split('\t')
        answers.setdefault(key, []).append(value)
    return run, answers


def test_command(index, command, tmp_path):
    index.mmcv(cpu_torch2120=(10, 12))
    index.torch('pypi', '2.12.0', '2.14.1')
    run, answers = ask(command)
    assert run.returncode == 0, run.stderr
    assert answers == {
        'python': [f'{tmp_path}/bin/python3.12'],
        'torch': ['torch==2.12.0 torchvision'],
        'mmcv': ['wheel'],
        'links': [f'{index.url}/mm/cpu-torch2120/simple/onedl-mmcv/'],
        'uv': ['--index-strategy', 'unsafe-best-match', '--index-url', f'{index.url}/pypi'],
    }
    assert all(line.startswith('[setup] ') for line in run.stderr.splitlines())


def test_command_offline(command, tmp_path):
    """Nothing answers: mmcv is built, and what pip finds is not known."""
    nowhere = 'http://127.0.0.1:9'
    command |= dict.fromkeys(('MMCV_BASE_URL', 'TORCH_BASE_URL', 'PIP_INDEX_URL'), nowhere)
    run, answers = ask(command)
    assert run.returncode == 0, run.stderr
    assert answers['mmcv'] == ['build'] and answers['index'] == ['no']
    assert answers['torch'] == ['torch torchvision']
    assert 'about 17 minutes with 2 compilers' in run.stderr
    assert 'not reached: 127.0.0.1 (Connection refused)' in run.stderr
    run, answers = ask(command, '--python', str(tmp_path / 'bin/python3.11'), '--installed', '2.9')
    assert answers['python'] == [f'{tmp_path}/bin/python3.11'] and answers['torch'] == ['']


def test_command_errors_are_one_line(command, tmp_path):
    shutil.rmtree(tmp_path / 'bin')
    (tmp_path / 'bin').mkdir()
    command['PATH'] = str(tmp_path / 'bin')
    run, _ = ask(command)
    assert run.returncode == 1 and run.stderr.count('\n') == 1
    assert run.stderr.startswith('[setup] ERROR: no Python 3.10 or 3.11 or 3.12 found')
