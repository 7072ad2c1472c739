"""What tools/setup.sh will do: which Python and torch, where mmcv comes from, or that it is built.

It asks which wheels of mmcv exist and which torch can be had for them, prints the choice and its
reason on stderr, and on stdout one line per decision, a key and its value separated by a tab:

    python  the interpreter of the environment
    torch   what the installer is given for torch, nothing if it is installed
    mmcv    `wheel`, or `build` if no wheel fits
    links   a page or folder with the wheel of mmcv
    index   `no` if the index of mmcv wheels did not answer
    uv      an argument for uv that says what pip's settings say
    no-uv   why uv cannot take the place of pip

Only the standard library is used, and any Python from 3.10 on can run it. Nothing is installed or
written. Every question has a time limit, and all of them together (tools/setup_wheels.py).
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from setup_wheels import (
    GROUP,
    LIMIT,
    Page,
    PipSettings,
    SetupError,
    Version,
    Web,
    Wheel,
    parse_version,
    parse_wheel,
    requirement,
    satisfies,
)

PYTHONS = ((3, 12), (3, 11), (3, 10))  # in order of preference: OneDL's wheels are for 3.12 first
MMCV_INDEX = 'https://mmwheels.onedl.ai'
TORCH_INDEX = 'https://download.pytorch.org/whl'
BUILD_MINUTES = 34  # of one core, for mmcv without CUDA: measured 17 minutes on two cores


# --- the machine ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interpreter:
    """A Python of this machine."""

    path: str
    version: tuple[int, int]
    full: str
    complete: bool = True  # it can make virtual environments
    headers: bool = True  # extensions can be compiled for it


INTERPRETER = """
import importlib.util, os, platform, sys, sysconfig
print(sys.executable, platform.python_version(), platform.python_implementation(),
      int(bool(importlib.util.find_spec('ensurepip') and importlib.util.find_spec('venv'))),
      int(os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h'))), sep='|')
"""


def look_at(command: str) -> Interpreter | None:
    """The interpreter that a command starts, or None if it starts none of those supported.

    It is run, not just looked up: a pyenv shim exists for versions that are not selected.
    """
    try:
        run = subprocess.run(
            [command, '-c', INTERPRETER], capture_output=True, text=True, timeout=LIMIT, cwd='/'
        )
        path, full, name, complete, headers = run.stdout.strip().split('|')
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    major, minor = (int(part) for part in full.split('.')[:2])
    if name != 'CPython' or (major, minor) not in PYTHONS:
        return None
    return Interpreter(path, (major, minor), full, complete == '1', headers == '1')


def _patch(path: Path) -> int:
    """The patch level in the path of a Python of pyenv."""
    match = re.search(r'\d+\.\d+\.(\d+)', str(path))
    return int(match[1]) if match else -1


def find_pythons(environ: dict[str, str]) -> list[Interpreter]:
    """The supported Pythons of this machine, the preferred one first, one per version.

    One that can make virtual environments comes before one that cannot, and one with headers
    before one without.
    """
    pyenv = Path(environ.get('PYENV_ROOT') or Path(environ.get('HOME', '/'), '.pyenv'))
    # pyenv's shims are slow, start only selected versions, and hide other Pythons of that name.
    folders = environ.get('PATH', '').split(os.pathsep)
    search = [folder for folder in folders if Path(folder) != pyenv / 'shims']
    names = [f'python{major}.{minor}' for major, minor in PYTHONS] + ['python3', 'python']
    paths = [shutil.which(name, path=os.pathsep.join(search)) for name in names]
    own = [
        str(max(installed, key=_patch))
        for major, minor in PYTHONS
        if (installed := list(pyenv.glob(f'versions/{major}.{minor}.*/bin/python3')))
    ]
    paths = [*paths, *own] if len(search) == len(folders) else [*own, *paths]
    seen: dict[str, str] = {}
    for path in filter(None, paths):
        seen.setdefault(os.path.realpath(path), path)
    order = list(seen.values())
    found: list[Interpreter | None] = [None] * len(order)

    def look(index: int) -> None:
        found[index] = look_at(order[index])

    threads = [threading.Thread(target=look, args=(index,)) for index in range(len(order))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    best: dict[tuple[int, int], Interpreter] = {}
    for python in filter(None, found):
        known = best.get(python.version)
        if known is None or (python.complete, python.headers) > (known.complete, known.headers):
            best[python.version] = python
    return sorted(best.values(), key=lambda python: PYTHONS.index(python.version))


def find_gpu(environ: dict[str, str]) -> tuple[int, int] | None:
    """The newest CUDA of the visible GPUs' driver, (0, 0) if it is unknown; None without a GPU."""
    if environ.get('CUDA_VISIBLE_DEVICES', '0').strip() in ('', '-1'):
        return None
    try:
        run = subprocess.run(['nvidia-smi'], capture_output=True, text=True, timeout=LIMIT)
        text = run.stdout if run.returncode == 0 else ''
    except (OSError, subprocess.TimeoutExpired):
        text = ''
    if match := re.search(r'CUDA[\w ]*Version: *(\d+)\.(\d+)', text):
        return int(match[1]), int(match[2])
    return (0, 0) if Path('/dev/nvidia0').exists() else None


def number_in(*paths: str) -> int | None:
    """The first number in the first of these files that has one."""
    for path in paths:
        try:
            return int(Path(path).read_text().split()[0])
        except (OSError, ValueError, IndexError):
            continue
    return None


def compilers(environ: dict[str, str], cuda: bool, root: str = '/') -> int:
    """How many compilers run at once: one per core, and as many as fit into memory.

    A compiler that reads torch's headers takes up to 2 GB, with CUDA 4 GB. What a container may
    use counts, not what its machine has.
    """
    if environ.get('MAX_JOBS', '').isdigit():
        return max(1, int(environ['MAX_JOBS']))
    cores = len(os.sched_getaffinity(0))
    group = f'{root}/sys/fs/cgroup'
    try:
        quota, period = Path(f'{group}/cpu.max').read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # 'max': no limit
        pass
    memory = None
    try:
        for line in Path(f'{root}/proc/meminfo').read_text().splitlines():
            if line.startswith('MemAvailable'):
                memory = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    limit = number_in(f'{group}/memory.max')
    if memory is not None and limit is not None:
        memory = min(memory, limit - (number_in(f'{group}/memory.current') or 0))
    if memory is None:
        return cores
    return max(1, min(cores, memory // ((4 if cuda else 2) << 30)))


# --- the choice -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """What is given.

    Attributes:
        pythons: the interpreters to choose from, the preferred one first.
        gpu: the newest CUDA of the driver, None without a GPU.
        mmcv: specifiers of onedl-mmcv.
        torch: specifiers of torch.
        torch_spec: TORCH_SPEC of the user, '' if there is none.
        installed: torch.__version__ in the environment, '' if there is none.
        cache: folder of the wheels that set-up built.
        machine: the processor, as in wheel names.
        glibc: version of the C library.
        minutes: how long building mmcv takes, in words.
    """

    pythons: list[Interpreter]
    gpu: tuple[int, int] | None = None
    mmcv: str = ''
    torch: str = ''
    torch_spec: str = ''
    installed: str = ''
    cache: str = ''
    mmcv_index: str = MMCV_INDEX
    torch_index: str = TORCH_INDEX
    mmcv_cpu_only: bool = False
    machine: str = 'x86_64'
    glibc: tuple[int, int] = (2, 28)
    minutes: str = ''


@dataclass(frozen=True)
class Torch:
    """A torch to install."""

    version: Version | None  # None if it cannot be known
    words: str  # for the installer
    name: str  # for the user


@dataclass(frozen=True)
class Plan:
    """What set-up does, and why."""

    python: Interpreter
    torch: str
    wheel: Wheel | None
    lines: list[str]
    index_answers: bool


class Chooser:
    """Asks for wheels of mmcv and for torch, and chooses among them."""

    def __init__(self, given: Situation, settings: PipSettings, web: Web) -> None:
        self.given, self.settings, self.web = given, settings, web
        self.problems: dict[str, str] = {}
        self.mmcv: list[Wheel] = []
        self.torches: list[Wheel] = []
        self.visions: list[Wheel] = []
        self.index_answers = False
        self.pip_answers = True  # every place that pip looks at could be read

    def _collect(self, address: str, page: Page, kind: str, only: str = '') -> None:
        lists = {'onedl-mmcv': self.mmcv, 'torch': self.torches, 'torchvision': self.visions}
        place = urlsplit(address).path if address.startswith('file:') else address
        for link in page.links:
            wheel = parse_wheel(link, place, kind)
            if (
                wheel
                and wheel.name in lists
                and only in ('', wheel.name)
                and wheel.version.phase == 0
            ):
                lists[wheel.name].append(wheel)

    def look(self) -> None:
        """Ask all places, those that do not depend on one another at once."""
        given, settings = self.given, self.settings
        root = given.mmcv_index.rstrip('/')
        names = ['onedl-mmcv'] if given.installed else ['onedl-mmcv', 'torch', 'torchvision']
        links = settings.words('find-links')
        pip = {f'{index}/{name}/': 'index' for index in settings.indexes for name in names}
        pip.update((link, 'links') for link in links)
        cpu = [f'{given.torch_index}/cpu/{name}/' for name in ('torch', 'torchvision')]
        if given.gpu or given.installed or given.torch_spec:
            cpu = []
        pages = self.web.ask([*pip, root + '/', *cpu])
        for address, page in pages.items():
            if page.problem:
                self.problems[address.rstrip('/')] = page.problem
        for address, kind in pip.items():
            self._collect(address, pages[address], kind)
        self.pip_answers = not any(pages[address].problem for address in pip)
        # The page lists CUDA builds too; only names with +cpu count there.
        for address in cpu:
            self._collect(address, pages[address], 'cpu')
        for built in sorted(Path(given.cache).glob('*')) if given.cache else []:
            page = Page([path.as_uri() for path in built.glob('*.whl')])
            self._collect(str(built), page, 'cache', 'onedl-mmcv')
        self.index_answers = not pages[root + '/'].problem
        groups = {match[0] for link in pages[root + '/'].links if (match := GROUP.search(link))}
        groups = {group for group in groups if self._device_fits(group.split('-')[0])}
        addresses: list[str] = []
        for group in groups:
            folder = f'{root}/{group}/simple/onedl-mmcv/'
            addresses += [folder, f'{folder}index.html']
        builds = {group.split('-')[0] for group in groups if group.startswith('cu')}
        if not given.installed and not given.torch_spec:
            for build in builds:
                addresses += [f'{given.torch_index}/{build}/{name}/' for name in names[1:]]
        pages = self.web.ask(addresses)
        for address, page in pages.items():
            if address.startswith(root):
                self._collect(address, page, 'onedl', 'onedl-mmcv')
            else:
                self._collect(address, page, address.split('/')[-3])

    def _device_fits(self, device: str) -> bool:
        """Whether operators for a device are of use here; '' is a wheel that does not say."""
        gpu = self.given.gpu
        if device in ('', 'cpu') or gpu is None or self.given.mmcv_cpu_only:
            return device == '' or (device == 'cpu' and (gpu is None or self.given.mmcv_cpu_only))
        if device == 'cuda':  # of the cache, where it was built for this torch
            return True
        local = self.given.installed.rpartition('+')[2]
        if local.startswith('cu'):
            return device == local
        return gpu == (0, 0) or int(device[2:-1]) <= gpu[0]

    def _available(self, python: Interpreter) -> list[Wheel]:
        """The torches that pip may take for a Python."""
        given = self.given
        limits = f'{given.torch},{self.settings.limits("torch")}'
        return [
            wheel
            for wheel in self.torches
            if wheel.fits(python.version, given.machine, given.glibc)
            and satisfies(wheel.version, limits)
        ]

    def _labelled(self, wheels: list[Wheel], python: Interpreter, label: str) -> list[Wheel]:
        """Builds of torch for a device (+cpu, +cu130) of which there is a torchvision too.

        The torchvision of PyPI does not load with them: `operator torchvision::nms does not exist`.
        torch 2.x goes with torchvision 0.(x + 15).
        """
        given = self.given
        limits = self.settings.limits('torchvision')
        minors = {
            wheel.version.release[1]
            for wheel in self.visions
            if wheel.version.local == label
            and wheel.fits(python.version, given.machine, given.glibc)
            and satisfies(wheel.version, limits)
        }
        return [
            wheel
            for wheel in wheels
            if wheel.version.local == label and wheel.version.release[1] + 15 in minors
        ]

    def torch_for(self, python: Interpreter, wheel: Wheel | None) -> Torch | None:
        """The torch for a Python and a wheel of mmcv, or to build mmcv; None if there is none."""
        given = self.given
        wanted = parse_version(wheel.torch) if wheel else None
        fixed = given.installed or given.torch_spec
        if fixed:
            match = re.search(r'(?:^|\s)torch\s*==\s*([^\s,;*]+?)(\.\*)?(?=[\s,;]|$)', fixed)
            version = parse_version(given.installed or (match[1] if match else ''))
            if wanted and (version is None or version.minor != wanted.minor):
                return None
            if given.installed:
                return Torch(version, '', f'torch {given.installed} (installed)')
            return Torch(version, fixed, f'"{fixed}" (TORCH_SPEC)')
        found = self._available(python)
        plain = [torch for torch in found if not torch.version.local]
        if wheel and wanted:
            found = [torch for torch in found if torch.version.minor == wanted.minor]
            plain = [torch for torch in found if not torch.version.local]
            label = wheel.device if re.fullmatch(r'cu\d+', wheel.device) else 'cpu'
        else:
            label = 'cpu'
        if label == 'cpu' and given.gpu:
            label = ''
        special = self._labelled(found, python, label) if label else []
        if wheel and not wanted:
            # For which torch it was built is not known: most probably for the newest.
            newest = max((torch.version.bare for torch in found), default=None)
            special = [torch for torch in special if torch.version.bare == newest]
        if special:
            best = max(special, key=lambda torch: torch.version)
            words = f'torch=={best.version.public}+{label} torchvision'
            if best.kind == label:
                words += f' --extra-index-url {given.torch_index}/{label}'
            return Torch(best.version, words, f'torch {best.version.public} ({label} build)')
        if plain and label.startswith('cu'):  # the index has the CUDA of PyPI's build, or another
            plain = [torch for torch in plain if cuda_of(torch, self.web) in ('', label)]
        if plain:
            best = max(plain, key=lambda torch: torch.version)
            pinned = f'torch=={best.version.public} torchvision'
            name = f'torch {best.version.public}'
            if given.gpu is None and given.machine == 'x86_64':
                name += ' (with CUDA: no CPU build of it and torchvision found)'
            return Torch(best.version, pinned if wanted else 'torch torchvision', name)
        if self.pip_answers:
            return None
        if wanted:  # pip may know more than could be read here
            series = f'{wanted.release[0]}.{wanted.release[1]}'
            return Torch(wanted, f'torch=={series}.* torchvision', f'torch {series}')
        return Torch(None, 'torch torchvision', 'the newest torch that pip finds')

    def options(self) -> Iterator[tuple[Wheel, Interpreter]]:
        """Wheels of mmcv with a Python that can take them, the best first.

        What the user points pip to comes before set-up's cache, and that before the index; then
        count the Python, the torch, and the version of mmcv.
        """
        given = self.given
        places = {'cache': 1, 'onedl': 2}
        ranked: list[tuple[tuple[object, ...], int, Wheel, Interpreter]] = []
        for wheel in self.mmcv:
            if not satisfies(wheel.version, given.mmcv) or not self._device_fits(wheel.device):
                continue
            torch = parse_version(wheel.torch)
            newness = tuple(-part for part in torch.release) if torch else (-9999,)
            cuda = -int(wheel.device[2:] or 0) if re.fullmatch(r'cu\d+', wheel.device) else 0
            for rank, python in enumerate(given.pythons):
                if wheel.fits(python.version, given.machine, given.glibc):
                    version = tuple(-part for part in wheel.version.release)
                    order = (
                        places.get(wheel.kind, 0),
                        not python.complete,
                        rank,
                        newness,
                        cuda,
                        version,
                    )
                    ranked.append((order, len(ranked), wheel, python))
        for _, _, wheel, python in sorted(ranked, key=lambda entry: entry[:2]):
            yield wheel, python

    def plan(self) -> Plan:
        """The choice.

        Raises:
            SetupError: if there is no torch for any of the Pythons.
        """
        self.look()
        refused = set()
        for wheel, python in self.options():
            torch = self.torch_for(python, wheel)
            if torch:
                return self._finish(python, torch, wheel, '')
            series = wheel.torch.rpartition('.')[0]
            refused.add(f'one for torch {series} and Python {python.full}')
        spec = self.given.torch_spec
        if spec and not self.given.installed and not re.search(r'torch\s*==', spec):
            reason = 'TORCH_SPEC names no version; when torch is there, one is looked for again'
        elif self.mmcv and refused:
            reason = f'there is {" and ".join(sorted(refused)[:2])}, but not that torch'
        elif self.mmcv:
            reason = 'those that exist are for other Pythons, platforms, devices or versions'
        else:
            reason = 'there is none'
        pythons = sorted(
            self.given.pythons, key=lambda python: not (python.complete and python.headers)
        )
        for python in pythons:
            if torch := self.torch_for(python, None):
                return self._finish(python, torch, None, reason)
        names = ', '.join(python.full for python in pythons)
        limits = self.settings.limits('torch')
        raise SetupError(
            f'pip finds no torch{self.given.torch} for Python {names}'
            + (f' within its constraint {limits}' if limits else '')
            + ': set TORCH_SPEC, PIP_INDEX_URL or PIP_FIND_LINKS, or lift the constraint.'
        )

    def _finish(self, python: Interpreter, torch: Torch, wheel: Wheel | None, reason: str) -> Plan:
        given = self.given
        mmcv = 'mmcv built from its source'
        if wheel:
            where = wheel.place.removesuffix('index.html').rstrip('/')
            mmcv = f'mmcv {wheel.version.public}, a wheel from {where}'
        lines = [f'plan: Python {python.full} ({python.path}), {torch.name}, {mmcv}']
        if wheel is None:
            lines.append(f'no wheel of mmcv fits: {reason}. Building takes {given.minutes}')
        elif not wheel.torch:
            lines.append(
                "the wheel's name does not say for which torch it is: if it does not load, mmcv is "
                f'built ({given.minutes})'
            )
        elif given.installed or given.torch_spec:
            lines.append('the wheel is for the torch that was given')
        else:
            version = '.'.join(map(str, python.version))
            lines.append(f'it is the newest torch with a wheel of mmcv for Python {version} there')
        # Who has a wheel need not read which other places do not answer.
        silent = {} if wheel else self.problems
        hosts: dict[str, str] = {}
        for address, problem in silent.items():
            parts = urlsplit(address)
            hosts.setdefault(parts.hostname or address, problem)
        for host, problem in list(hosts.items())[:4]:
            lines.append(f'not reached: {host} ({problem})')
        return Plan(python, torch.words, wheel, lines, self.index_answers)


def cuda_of(torch: Wheel, web: Web) -> str:
    """The CUDA that a torch from a package index was built with, e.g. 'cu130'; '' if unknown.

    It depends on NVIDIA's packages of that version, says its metadata.
    """
    try:
        if torch.url.startswith('file:'):
            with zipfile.ZipFile(unquote(urlsplit(torch.url).path)) as file:
                name = next(name for name in file.namelist() if name.endswith('/METADATA'))
                text = file.read(name).decode()
        else:
            text = web.read(f'{torch.url}.metadata', min(web.end, time.monotonic() + web.limit))[0]
    except Exception:  # not every index has it
        return ''
    match = re.search(
        r'^Requires-Dist: *(?:cuda-toolkit|nvidia-cuda-runtime)[^=]*== *(\d+)\.(\d+)',
        text,
        re.MULTILINE,
    )
    return f'cu{match[1]}{match[2]}' if match else ''


# --- command line ---------------------------------------------------------------------------------


def minutes_of_build(environ: dict[str, str], cuda: bool) -> str:
    """How long building mmcv takes, in words."""
    jobs = compilers(environ, cuda)
    count = f'{jobs} compilers' if jobs > 1 else 'one compiler'
    if cuda:
        return f'an hour or more with {count}, because of the CUDA operators'
    return f'about {max(2, -(-BUILD_MINUTES // jobs))} minutes with {count}'


def for_uv(settings: PipSettings) -> list[tuple[str, str]]:
    """Answers about uv."""
    arguments, reason = settings.for_uv()
    return [('no-uv', reason)] if reason else [('uv', argument) for argument in arguments]


def show(answers: list[tuple[str, str]]) -> None:
    """Print answers for tools/setup.sh."""
    for key, value in answers:
        print(key, value, sep='\t')


def main(argv: list[str] | None = None) -> int:
    """Print the plan."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--python', default='', help='the only interpreter to consider')
    parser.add_argument('--installed', default='', help='version of the torch that is there')
    parser.add_argument('--settings', action='store_true', help='only print what is for uv')
    parser.add_argument('--cache', default='', help="folder of set-up's own wheels")
    parser.add_argument('--jobs', choices=('cpu', 'cuda'), help='only print how many compilers')
    args = parser.parse_args(argv)
    environ = dict(os.environ)
    if args.jobs:
        print(compilers(environ, args.jobs == 'cuda'))
        return 0
    try:
        prefix = str(Path(args.python).parents[1]) if args.python else ''
        settings = PipSettings(environ, prefix)
        if args.settings:
            show(for_uv(settings))
            return 0
        if args.python:
            python = look_at(args.python)
            pythons = [python] if python else []
        else:
            pythons = find_pythons(environ)
        versions = ' or '.join(f'{major}.{minor}' for major, minor in sorted(PYTHONS))
        if not pythons:
            raise SetupError(
                f'no Python {versions} found (only {platform.python_version()}): install one (e.g. '
                'apt install python3.12 python3.12-venv python3.12-dev) or set '
                'PYTHON=/path/to/python3.12.'
            )
        project = (Path(__file__).resolve().parents[1] / 'pyproject.toml').read_text()
        extra = re.search(r'^onedl = \[(.*?)^\]', project, re.DOTALL | re.MULTILINE)
        wanted = re.findall(r'"([^"]+)"', extra[1]) if extra else []
        gpu = find_gpu(environ)
        cpu_only = environ.get('MMCV_CPU_ONLY') == '1'
        library, number = platform.libc_ver()
        glibc = parse_version(number) if library == 'glibc' else None
        given = Situation(
            pythons,
            gpu,
            requirement(wanted, 'onedl-mmcv'),
            requirement(wanted, 'torch'),
            environ.get('TORCH_SPEC', '').strip(),
            args.installed,
            args.cache,
            environ.get('MMCV_BASE_URL') or MMCV_INDEX,
            (environ.get('TORCH_BASE_URL') or TORCH_INDEX).rstrip('/'),
            cpu_only,
            platform.machine(),
            (glibc.release[0], glibc.release[1]) if glibc else (2, 17),
            minutes_of_build(environ, gpu is not None and not cpu_only),
        )
        plan = Chooser(given, settings, Web(settings)).plan()
    except SetupError as error:
        print(f'[setup] ERROR: {error}', file=sys.stderr)
        return 1
    for line in plan.lines:
        print(f'[setup] {line}', file=sys.stderr)
    answers = [('python', plan.python.path), ('torch', plan.torch)]
    answers.append(('mmcv', 'wheel' if plan.wheel else 'build'))
    if plan.wheel and plan.wheel.kind == 'onedl':
        answers.append(('links', plan.wheel.place))
    if not plan.index_answers:
        answers.append(('index', 'no'))
    show(answers + for_uv(settings))
    return 0


if __name__ == '__main__':
    sys.exit(main())
