"""tools/setup.sh function by function, in environments of fake packages and without a network."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason='set-up supports Python 3.10, 3.11 and 3.12'
)
OLD_PYTHON = """
case $2 in
    *version_info*) exit 1 ;;
    '') [ "$1" != --version ] || echo Python 3.9.1 ;;
esac
"""
TORCH = """
class cuda:
    is_available = staticmethod(lambda: {gpu})
    device_count = staticmethod(lambda: 2)
    get_device_capability = staticmethod(lambda index: (9, index))
    synchronize = staticmethod(lambda: None)
class tensor:
    def __init__(self, *_):
        pass
    cuda = lambda self: self
ones = tensor
class version:
    cuda = '13.0'
__version__ = '2.14.1+cu130'
"""


def shell(code, path=None, **environment):
    """Run code after the functions of tools/setup.sh were read."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ('VIRTUAL_ENV', 'CONDA_PREFIX', 'PYTHON', 'MMCV_CPU_ONLY', 'CXX')
        and not name.startswith('PIP_')
    }
    env |= {name: str(value) for name, value in environment.items()}
    env |= dict(PIP_NO_INDEX='1', PIP_CONFIG_FILE=os.devnull)
    if path is not None:
        env['PATH'] = str(path)
    return subprocess.run(
        ['/bin/bash', '-c', f'source {ROOT}/tools/setup.sh\n{code}'],
        env=env,
        capture_output=True,
        text=True,
    )


def assert_one_line(run, *parts):
    """It failed with one line that holds every part."""
    assert run.returncode == 1, run.stdout + run.stderr
    line = run.stderr.splitlines()
    assert len(line) == 1 and line[0].startswith('[setup] ERROR: '), run.stderr
    for part in parts:
        assert part in line[0]


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)
    return path


def commands(folder, *names):
    """A folder for PATH with only these commands of the machine."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(subprocess.check_output(['which', name], text=True).strip())
    return folder


@pytest.fixture(scope='module')
def empty_env(tmp_path_factory):
    folder = tmp_path_factory.mktemp('empty') / 'env'
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    return folder


@pytest.fixture
def env(empty_env, tmp_path):
    """A virtual environment with pip; `env.site` is its site-packages."""
    folder = shutil.copytree(empty_env, tmp_path / 'env', symlinks=True)
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'

    class Env:
        python = folder / 'bin/python'
        site = folder / 'lib' / version / 'site-packages'

        def distributions(self, prefix):
            return sorted(path.name for path in self.site.glob(f'{prefix}*.dist-info'))

    return Env()


def make_wheel(folder, distribution, version, files):
    name = distribution.replace('-', '_')
    info = f'{name}-{version}.dist-info'
    files = {
        **files,
        f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n',
        f'{info}/WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    }
    folder.mkdir(exist_ok=True)
    path = folder / f'{name}-{version}-py3-none-any.whl'
    with zipfile.ZipFile(path, 'w') as file:
        for name, text in files.items():
            file.writestr(name, text)
        file.writestr(
            f'{info}/RECORD', ''.join(f'{name},,\n' for name in [*files, f'{info}/RECORD'])
        )
    return path


def fake_distribution(site, name, version='1.0', record=True):
    info = site / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    if record:
        (info / 'RECORD').write_text('')
    return info


# --- environment ----------------------------------------------------------------------------------


def test_python_is_tried_not_looked_up(tmp_path):
    """The one that makes the plan; which one the environment gets is part of the plan."""
    path = commands(tmp_path / 'bin', 'dirname')
    executable(path / 'python3', 'echo "pyenv: python3: command not found"; exit 127')
    executable(path / 'python3.12', 'exit 1')
    run = shell('find_python', path, PYENV_ROOT=tmp_path)
    assert_one_line(run, 'no Python 3.10, 3.11 or 3.12 found', 'apt install')
    (path / 'python3.11').symlink_to(Path(sys.executable).resolve())
    found = shell('find_python', path, PYENV_ROOT=tmp_path).stdout.strip()
    assert found == str(path / 'python3.11')


def test_python_named_by_the_user_is_not_replaced(tmp_path):
    old = executable(tmp_path / 'python3.9', 'exit 1')
    assert_one_line(shell('find_python', PYTHON=old), f'PYTHON={old}', '3.10, 3.11 or 3.12')


def test_active_environment_is_used(env):
    folder = env.python.parents[1]
    show = 'choose_environment; echo "$PY $OWN_ENV"'
    assert shell(show, VIRTUAL_ENV=folder).stdout == f'{env.python} \n'
    assert shell(show, CONDA_PREFIX=folder, CONDA_DEFAULT_ENV='mm').stdout == f'{env.python} \n'


def test_broken_active_environments(tmp_path, env):
    run = shell('choose_environment', VIRTUAL_ENV=tmp_path / 'gone')
    assert_one_line(run, 'has no working Python', 'deactivate')
    executable(tmp_path / 'old/bin/python', OLD_PYTHON)
    run = shell('choose_environment', VIRTUAL_ENV=tmp_path / 'old')
    assert_one_line(run, 'Python 3.9.1', 'deactivate')
    for path in env.site.glob('pip*'):
        shutil.rmtree(path)
    run = shell('choose_environment; make_environment', VIRTUAL_ENV=env.python.parents[1])
    assert_one_line(run, 'has no pip', '-m ensurepip')


@pytest.mark.slow
def test_project_environment_is_made_completed_and_refused(tmp_path):
    """Without an active one, and with conda's base active, .venv in the project is used."""
    show = (
        f'ROOT={tmp_path}; BASE={sys.executable}; choose_environment; make_environment\n'
        'echo "$PY $OWN_ENV"'
    )
    base = dict(CONDA_PREFIX='/opt/conda', CONDA_DEFAULT_ENV='base')
    python = tmp_path / '.venv/bin/python'
    # What an interrupted `python -m venv` leaves: an interpreter but no pip.
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path / '.venv'], check=True)
    run = shell(show, **base)
    assert run.stdout == f'{python} 1\n', run.stderr
    assert subprocess.run([python, '-m', 'pip', '--version'], capture_output=True).returncode == 0
    shutil.rmtree(tmp_path / '.venv')
    run = shell(show, **base)
    assert run.stdout == f'{python} 1\n' and 'making .venv' in run.stderr
    python.unlink()
    python.symlink_to(tmp_path / 'removed')
    assert_one_line(shell(show, **base), 'no longer works', f'rm -rf {tmp_path}/.venv')


def test_too_little_disk(tmp_path):
    path = commands(tmp_path / 'bin', 'dirname', 'awk')
    executable(path / 'df', r'printf "Filesystem ...\n/dev/sda 9 9 5242880 1%% /\n"')
    run = shell(f'need_disk {tmp_path}/not/yet 8 torch', path)
    assert_one_line(run, f'torch needs about 8 GB in {tmp_path} but only 5 GB are free')
    assert shell(f'need_disk {tmp_path} 5 torch', path).returncode == 0


def test_half_installed_package_is_removed_from_our_environment_only(env):
    fake_distribution(env.site, 'whole')
    half = fake_distribution(env.site, 'half', record=False)
    run = shell(f'PY={env.python}; OWN_ENV=; check_half_installed')
    assert_one_line(run, str(half), 'remove')
    assert half.exists()
    run = shell(f'PY={env.python}; OWN_ENV=1; check_half_installed')
    assert run.returncode == 0 and 'half-1.0 was left half-installed' in run.stderr
    assert not half.exists() and env.distributions('whole')


def test_providers_are_not_mixed(env):
    fake_distribution(env.site, 'onedl-mmcv')
    assert shell(f'PY={env.python}; check_providers').returncode == 0
    mmdet = fake_distribution(env.site, 'mmdet')
    run = shell(f'PY={env.python}; check_providers')
    assert_one_line(run, 'both mmdet and onedl-mmcv', 'pip uninstall -y mmdet onedl-mmcv')
    mmdet.rename(mmdet.with_name('mmcv-1.0.dist-info'))
    (env.site / 'mmcv-1.0.dist-info/METADATA').write_text('Name: mmcv\nVersion: 1.0\n')
    shutil.rmtree(env.site / 'onedl_mmcv-1.0.dist-info')
    assert_one_line(
        shell(f'PY={env.python}; check_providers'), 'original OpenMMLab packages (mmcv)'
    )


# --- torch and mmcv -------------------------------------------------------------------------------


def test_broken_torch_is_named(env):
    fake_distribution(env.site, 'torch', '2.14.1')
    (env.site / 'torch.py').write_text('raise OSError("libcudart.so.13: cannot open")')
    run = shell(f'PY={env.python}; install_torch')
    assert_one_line(run, 'torch 2.14.1 is installed', 'libcudart.so.13', 'pip uninstall -y torch')


def test_index_out_of_reach_is_one_error_after_pip(env):
    run = shell(f'PY={env.python}; install_torch')
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith('[setup] ERROR: torch could not be installed')


WITHOUT_CUDA = 'get_compiling_cuda_version = nms = lambda *_: "not available"'


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def mmcv_wheel(folder, ops):
    return make_wheel(folder, 'onedl-mmcv', '2.3.6', {'mmcv/__init__.py': '', 'mmcv/ops.py': ops})


@pytest.mark.parametrize(
    ('gpu', 'cpu_only', 'ops', 'reason'),
    [
        slow(False, '0', WITHOUT_CUDA, None),
        slow(False, '0', 'import mmcv._ext', "No module named 'mmcv._ext'"),
        (True, '0', WITHOUT_CUDA, 'built without CUDA'),
        (True, '1', WITHOUT_CUDA, None),
        slow(True, '0', 'get_compiling_cuda_version = nms = lambda *_: "13.0"', None),
        slow(
            True,
            '0',
            'get_compiling_cuda_version = lambda: "13.0"\n'
            'def nms(*_): raise RuntimeError("no kernel image is available")',
            'no kernel image',
        ),
    ],
)
def test_wheel_is_kept_only_if_it_works(env, tmp_path, gpu, cpu_only, ops, reason):
    (env.site / 'torch.py').write_text(TORCH.format(gpu=gpu))
    wheel = mmcv_wheel(tmp_path / 'wheels', ops)
    run = shell(f'PY={env.python}; mmcv_from here {wheel}', MMCV_CPU_ONLY=cpu_only)
    assert (run.returncode == 0) == (reason is None), run.stderr
    assert bool(env.distributions('onedl_mmcv')) == (reason is None)
    if reason:
        assert 'does not fit this torch' in run.stderr and reason in run.stderr


@pytest.mark.slow
def test_mmcv_order_cache_then_index_then_build(env, tmp_path):
    """A cached wheel is used first, else one that pip finds, else mmcv is built."""
    (env.site / 'torch.py').write_text(TORCH.format(gpu=False))
    works = WITHOUT_CUDA
    built = mmcv_wheel(tmp_path / 'built', works)
    code = (
        f'PY={env.python}; CACHE={tmp_path}/cache\n'
        'build_mmcv() { echo "built for $1"; mkdir -p "$CACHE/wheels/$1";'
        f' cp {built} "$CACHE/wheels/$1/"; }}\n'
        'install_mmcv'
    )
    remove = [env.python, '-m', 'pip', 'uninstall', '-q', '-y', 'onedl-mmcv']
    nowhere = dict(MMCV_BASE_URL=f'file://{tmp_path}/nowhere', PIP_FIND_LINKS='')

    broken = mmcv_wheel(tmp_path / 'broken', 'import mmcv._ext').parent
    run = shell(code, **{**nowhere, 'PIP_FIND_LINKS': broken})
    assert run.returncode == 0, run.stderr
    assert 'does not fit this torch' in run.stderr
    key = re.search('built for (.*)', run.stdout).group(1)
    assert key.startswith('cp3') and '-torch2.14.1+cu130-cpu-' in key

    run = shell(code, **nowhere)
    assert (run.stdout, run.stderr) == ('', '')  # in place: nothing is done
    subprocess.run(remove, check=True)
    run = shell(code, **nowhere)
    assert run.stdout == '' and f'wheel from {tmp_path}/cache/wheels/{key}' in run.stderr

    subprocess.run(remove, check=True)
    shutil.rmtree(tmp_path / 'cache')
    good = mmcv_wheel(tmp_path / 'good', works).parent
    run = shell(code, **{**nowhere, 'PIP_FIND_LINKS': good})
    assert run.stdout == '' and 'wheel from the package index' in run.stderr


def test_no_compiler(tmp_path):
    path = commands(tmp_path / 'bin', 'dirname')
    assert_one_line(shell('find_compiler', path), 'no C++ compiler', 'apt install g++')
    executable(path / 'g++', 'exit 0')
    assert shell('find_compiler', path).stdout.strip() == str(path / 'g++')


@pytest.mark.parametrize('standard', [17, 20])
def test_cxx_standard_is_what_the_headers_ask_for(env, tmp_path, standard):
    compiler = shell('find_compiler').stdout.strip()
    if not compiler:
        pytest.skip('needs a C++ compiler')
    headers = tmp_path / 'include/torch'
    headers.mkdir(parents=True)
    year = {17: 2017, 20: 2020}[standard]
    limit = f'#if __cplusplus < {year - 1}00L\n#error C++{standard} is required\n#endif\n'
    (headers / 'extension.h').write_text(limit)
    package = env.site / 'torch/utils'
    package.mkdir(parents=True)
    (package.parent / '__init__.py').write_text('')
    (package / '__init__.py').write_text('')
    (package / 'cpp_extension.py').write_text(f'include_paths = lambda: [{str(headers.parent)!r}]')
    run = shell(f'PY={env.python}; cxx_standard {compiler} {tmp_path}/log')
    assert run.stdout.strip() == str(standard), run.stderr
    (headers / 'extension.h').write_text('#error always')
    assert shell(f'PY={env.python}; cxx_standard {compiler} {tmp_path}/log').returncode == 1
    assert '#error always' in (tmp_path / 'log').read_text()


def test_compiler_swaps_the_standard_and_nothing_else(tmp_path):
    show = executable(tmp_path / 'real', 'printf "<%s>" "$@"')
    shell(f'write_compiler {tmp_path}/c++ {show} 20')
    given = ['-std=c++17', '-DX="a b"', '', '-std=c++17x', 'f.cpp', '-std=c++17']
    run = subprocess.run([tmp_path / 'c++', *given], capture_output=True, text=True)
    assert run.stdout == '<-std=c++20><-DX="a b"><><-std=c++17x><f.cpp><-std=c++20>'


def test_progress_shows_count_and_time_left():
    lines = ['running build_ext', '  [1/3] c++ -o a.o', 'warning: [x]', '[2/3] c++', '[3/3] c++']
    code = f'printf "%s\\n" {" ".join(map(repr, lines))} | {sys.executable} -c "$SHOW_PROGRESS"'
    shown = shell(f'{code} 0').stderr.splitlines()
    assert '1 of 3 files compiled' in shown[0] and 'min left' in shown[0]
    assert '3 of 3 files compiled' in shown[-1] and 'about 0.0 min left' in shown[-1]
    assert len(shown) == 2  # not a line per file in a log
    shown = shell(f'{code} 40').stderr.splitlines()  # of a build that was interrupted
    assert '41 of 43 files compiled' in shown[0] and '43 of 43' in shown[-1]


# --- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize('libgl', [slow(True), False])
def test_one_working_cv2_is_left(env, tmp_path, libgl):
    wheels = tmp_path / 'wheels'
    needs_gl = '' if libgl else '\nraise ImportError("libGL.so.1: cannot open")'
    make_wheel(wheels, 'opencv-python', '4.12', {'cv2/__init__.py': f'__version__ = "4"{needs_gl}'})
    make_wheel(wheels, 'opencv-python-headless', '4.12', {'cv2/__init__.py': '__version__ = "4"'})
    links = dict(PIP_FIND_LINKS=wheels)
    run = shell(f'PY={env.python}; pip_install opencv-python opencv-python-headless', **links)
    assert len(env.distributions('opencv')) == 2, run.stderr
    run = shell(f'PY={env.python}; fix_cv2', **links)
    assert run.returncode == 0, run.stderr
    assert len(env.distributions('opencv')) == 1
    if not libgl:
        assert env.distributions('opencv') == ['opencv_python_headless-4.12.dist-info']
    assert subprocess.run([env.python, '-c', 'import cv2; cv2.__version__']).returncode == 0
    assert shell(f'PY={env.python}; fix_cv2', **links).stderr == ''  # nothing left to do


def test_stamp_alone_is_not_trusted(env):
    prefix = env.python.parents[1]
    code = f'PY={env.python}; stamp > {prefix}/$STAMP_NAME; in_place'
    assert shell(code).returncode == 1  # the packages are not there


def test_stamp_tells_what_was_to_be_installed(env):
    stamps = {shell(f'PY={env.python}; stamp', SETUP_EXTRAS=e).stdout for e in ('', 'onedl')}
    assert len(stamps) == 2


# --- the plan -------------------------------------------------------------------------------------

NOWHERE = dict.fromkeys(('MMCV_BASE_URL', 'TORCH_BASE_URL'), 'http://127.0.0.1:9')


@pytest.fixture
def project(tmp_path):
    """The files of the project that set-up reads."""
    folder = tmp_path / 'project'
    (folder / 'tools').mkdir(parents=True)
    for path in [ROOT / 'pyproject.toml', *(ROOT / 'tools').glob('setup*')]:
        shutil.copy(path, folder / path.relative_to(ROOT))
    return folder


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob('*'))}


def test_dry_run_changes_nothing(project, tmp_path):
    """Relative places of wheels are those of the folder that it is called from."""
    tags = f'cp3{sys.version_info.minor}-cp3{sys.version_info.minor}-linux_x86_64.whl'
    (tmp_path / 'wheels').mkdir()
    for name in ('onedl_mmcv-2.3.6', 'torch-2.14.1'):
        (tmp_path / 'wheels' / f'{name}-{tags}').touch()
    before = tree(tmp_path)
    run = shell(
        f'ROOT={project}; cd {tmp_path}; main --dry-run',
        **NOWHERE,
        PYTHON=sys.executable,
        HOME=tmp_path,
        XDG_CACHE_HOME=tmp_path / 'cache',
        PIP_FIND_LINKS='wheels',
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == f'{project}/.venv/bin/python\n'
    assert f'mmcv 2.3.6, a wheel from {tmp_path}/wheels' in run.stderr
    assert f'{project}/.venv, which would be made' in run.stderr
    assert run.stderr.endswith('nothing was changed\n')
    assert tree(tmp_path) == before


UV = """
case $1 in
    --version) echo uv 0.13.9 ;;
    *) echo "$@" >> {log}; exit {status} ;;
esac
"""


@pytest.mark.parametrize(
    ('status', 'given', 'said'),
    [
        (0, {}, "uv 0.13.9 installs, with pip's settings"),
        (1, {}, 'uv could not install this: pip tries'),
        (0, {'SETUP_UV': '0'}, ''),
        (0, {'PIP_CLIENT_CERT': 'x'}, 'pip installs although uv is there'),
    ],
)
def test_uv_installs_with_the_settings_of_pip(tmp_path, status, given, said):
    """A Python that shows what pip is called with, and a uv that does."""
    log = tmp_path / 'log'
    executable(tmp_path / 'bin/uv', UV.format(log=log, status=status))
    pip = f'[ "$1 $2" != "-m pip" ] || {{ echo "$@" >> {log}; exit; }}'
    python = executable(tmp_path / 'python', f'{pip}\nexec {sys.executable} "$@"')
    run = shell(
        f'PY={python}; mmcv_works() {{ true; }}; make_plan; pip_install some thing',
        f'{tmp_path}/bin:{os.environ["PATH"]}',
        PIP_CONSTRAINT='/limits.txt',
        **given,
    )
    assert run.returncode == 0, run.stderr
    assert said in run.stderr
    calls = log.read_text().splitlines()
    calls = [call.replace(' --no-index', '', call.startswith('pip')) for call in calls]
    settings = '--index-strategy unsafe-best-match --constraint /limits.txt'
    with_uv = f'pip install {settings} --quiet --python {python} some thing'
    with_pip = '-m pip install --no-compile -qq some thing'
    if status:
        assert calls == [with_uv, with_pip]
    else:
        assert calls == [with_pip if given else with_uv]


@pytest.mark.parametrize('cuda', [True, False])
def test_build_is_for_the_devices_at_hand_and_continues(env, tmp_path, cuda):
    """What pip is given to compile with; two files of an earlier build are there."""
    devices = 'cuda_8.0_9.0' if cuda else 'cpu'
    key = f'cp311-torch2.14.1-{devices}-x86_64'
    build = tmp_path / 'build' / key
    (build / 'onedl_mmcv-2.3.6/build').mkdir(parents=True)
    (build / 'onedl_mmcv-2.3.6/setup.py').touch()
    (build / 'onedl_mmcv-2.3.6.tar.gz').touch()
    for name in 'ab':
        (build / f'onedl_mmcv-2.3.6/build/{name}.o').touch()
    executable(tmp_path / 'cuda/bin/nvcc', '')
    names = 'MAX_JOBS FORCE_CUDA TORCH_CUDA_ARCH_LIST CUDA_VISIBLE_DEVICES MMCV_WITH_OPS'
    wheel = 'mkdir -p "$8"; touch "$8/onedl_mmcv-2.3.6-py3-none-any.whl"'
    show = f'for name in {names}; do eval "echo \\$name=\\${{$name-unset}}"; done >{tmp_path}/seen'
    python = executable(
        tmp_path / 'bin/python',
        f'[ "$3" != wheel ] || {{ {show}; echo "[1/4] c++"; {wheel}; exit; }}\n'
        f'exec {env.python} "$@"',
    )
    run = shell(
        f'PY={python}; CACHE={tmp_path}; cxx_standard() {{ echo 20; }}\n'
        f'find_compiler() {{ echo /bin/true; }}; build_mmcv {key} onedl-mmcv',
        MAX_JOBS=3,
        CUDA_HOME=tmp_path / 'cuda',
        CUDA_VISIBLE_DEVICES='0',
        FORCE_CUDA='1',
    )
    assert run.returncode == 0, run.stderr
    assert 'an earlier build is continued: 2 files are compiled already' in run.stderr
    assert '3 of 6 files compiled' in run.stderr and 'with C++20 and 3 compilers' in run.stderr
    assert list((tmp_path / 'wheels' / key).iterdir()) and not build.exists()
    given = dict(line.split('=') for line in (tmp_path / 'seen').read_text().splitlines())
    assert given == {
        'MAX_JOBS': '3',
        'FORCE_CUDA': '1' if cuda else '0',
        'TORCH_CUDA_ARCH_LIST': '8.0;9.0' if cuda else 'unset',
        'CUDA_VISIBLE_DEVICES': '0' if cuda else '',
        'MMCV_WITH_OPS': '1',
    }


def test_unknown_argument():
    run = subprocess.run(
        ['bash', ROOT / 'tools/setup.sh', '--fast'], capture_output=True, text=True
    )
    assert_one_line(run, 'unknown argument --fast', '--dry-run')


def test_help_names_every_variable():
    run = subprocess.run(['bash', ROOT / 'tools/setup.sh', '-h'], capture_output=True, text=True)
    for name in (
        'TORCH_SPEC',
        'MMCV_BASE_URL',
        'MAX_JOBS',
        'MMCV_CPU_ONLY',
        'XDG_CACHE_HOME',
        '--dry-run',
    ):
        assert name in run.stdout
    assert 'set -euo' not in run.stdout
