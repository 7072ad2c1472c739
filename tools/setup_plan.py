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
written. Every question has a time limit, and all of them together `TOTAL` seconds.
"""

from __future__ import annotations

import argparse
import base64
import configparser
import json
import os
import platform
import re
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

PYTHONS = ((3, 12), (3, 11), (3, 10))  # in order of preference: OneDL's wheels are for 3.12 first
MMCV_INDEX = 'https://mmwheels.onedl.ai'
TORCH_INDEX = 'https://download.pytorch.org/whl'
PYPI = 'https://pypi.org/simple'
LIMIT = 5.0  # seconds for a page
TOTAL = 12.0  # seconds for all pages
LARGEST_PAGE = 32 << 20  # bytes
BUILD_MINUTES = 34  # of one core, for mmcv without CUDA: measured 17 minutes on two cores


class SetupError(Exception):
    """Set-up cannot go on; its text is one line for the user."""


# --- versions -------------------------------------------------------------------------------------


class Version(NamedTuple):
    """A release number that compares as PEP 440 says, for what occurs in torch and mmcv."""

    release: tuple[int, ...]
    phase: int  # -1 for alpha, beta, candidate and development releases
    post: int
    local: str

    @property
    def public(self) -> str:
        """The version without its local label, e.g. '2.12.0' of 2.12.0+cpu."""
        text = '.'.join(map(str, self.release))
        return text if self.post < 0 else f'{text}.post{self.post}'

    @property
    def bare(self) -> Version:
        """The version without its local label, for comparisons."""
        return self._replace(local='')

    @property
    def minor(self) -> tuple[int, ...]:
        """E.g. (2, 12)."""
        return (*self.release, 0)[:2]


VERSION = re.compile(
    r'v?(\d+(?:\.\d+)*)([-_.]?(?:a|b|rc|alpha|beta|dev)[-_.]?\d*)?(?:\.?post(\d+))?(\.dev\d+)?'
    r'(?:\+([a-z0-9.]+))?',
    re.IGNORECASE,
)


def parse_version(text: str) -> Version | None:
    """The version in `text`, or None if it is none."""
    match = VERSION.fullmatch(text.strip())
    if not match:
        return None
    release = tuple(int(part) for part in match[1].split('.'))
    release += (0,) * (3 - len(release))  # 2.12 equals 2.12.0
    phase = -1 if match[2] or match[4] else 0
    return Version(release, phase, int(match[3] or -1), (match[5] or '').lower())


def satisfies(version: Version, specifiers: str) -> bool:
    """Whether a version is in e.g. '>=2.3.6,<2.4'; what is not understood forbids nothing."""
    public = version.bare
    for part in specifiers.split(','):
        match = re.fullmatch(r'\s*(===?|!=|<=|>=|<|>|~=)\s*([^\s*]+?)(\.\*)?\s*', part)
        limit = match and parse_version(match[2])
        if not match or not limit:
            continue
        if match[3]:
            length = match[2].count('.') + 1
            equal = version.release[:length] == limit.release[:length]
        else:
            equal = version == limit if limit.local else public == limit
        series = version.release[: match[2].count('.')] == limit.release[: match[2].count('.')]
        fits = {
            '==': equal,
            '===': equal,
            '!=': not equal,
            '<=': public <= limit,
            '>=': public >= limit,
            '<': public < limit,
            '>': public > limit,
            '~=': public >= limit and series,
        }
        if not fits[match[1]]:
            return False
    return True


def requirement(lines: Iterable[str], name: str) -> str:
    """All specifiers that requirement lines state for a package, e.g. '>=2.6,<=2.14.1'."""
    found = []
    for line in lines:
        match = re.match(r'\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*([^;#@]*)', line)
        if match and re.sub(r'[-_.]+', '-', match[1]).lower() == name and match[2].strip():
            found.append(match[2].strip())
    return ','.join(found)


# --- wheels ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wheel:
    """A wheel that can be had."""

    name: str
    version: Version
    pythons: frozenset[str]
    abis: frozenset[str]
    platforms: frozenset[str]
    url: str
    place: str  # where it was found: a folder or page
    torch: str = ''  # mmcv: the torch that it was built for, '2.12.0', if that is known
    device: str = ''  # 'cpu', 'cu130', or '' if that is not known
    kind: str = ''  # of the place: links, index, cache, onedl, or the folder of torch's index

    def fits(self, python: tuple[int, int], machine: str, glibc: tuple[int, int]) -> bool:
        """Whether it can be installed for this Python, processor and C library."""
        tag = f'cp{python[0]}{python[1]}'
        return (
            bool(self.pythons & {tag, f'py{python[0]}'})
            and bool(self.abis & {tag, 'none'})
            and any(platform_fits(name, machine, glibc) for name in self.platforms)
        )


def platform_fits(tag: str, machine: str, glibc: tuple[int, int]) -> bool:
    """Whether a wheel's platform tag, e.g. manylinux_2_28_x86_64, is that of this machine."""
    if tag == 'any':
        return True
    match = re.fullmatch(
        r'(linux|manylinux1|manylinux2010|manylinux2014|manylinux_\d+_\d+)_(.+)', tag
    )
    if not match or match[2] != machine:
        return False
    old = {'manylinux1': (2, 5), 'manylinux2010': (2, 12), 'manylinux2014': (2, 17)}
    if match[1].startswith('manylinux_'):
        major, minor = match[1].split('_')[1:]
        return (int(major), int(minor)) <= glibc
    return old.get(match[1], (0, 0)) <= glibc


GROUP = re.compile(r'(cu\d+|cpu)-torch(\d{3,})')  # a folder of OneDL's index, e.g. cu130-torch2120
KEY = re.compile(r'cp\d+-torch([^-]+)-(cuda|cpu)[^-]*-')  # a folder of set-up's own cache


def parse_wheel(url: str, place: str, kind: str = '') -> Wheel | None:
    """A wheel by its address; None if the name is not that of a wheel."""
    name = unquote(urlsplit(url).path).rsplit('/', 1)[-1]
    parts = name[: -len('.whl')].split('-')
    if not name.endswith('.whl') or len(parts) not in (5, 6):
        return None
    version = parse_version(parts[1])
    if version is None:
        return None
    torch = device = ''
    if group := GROUP.search(unquote(url)) or GROUP.search(place):
        device, digits = group.groups()
        torch = f'{digits[0]}.{digits[1:-1]}.{digits[-1]}'
    elif kind == 'cache' and (key := KEY.search(place)):
        torch, device = key[1].split('+')[0], key[2]
    tags = [frozenset(part.split('.')) for part in parts[-3:]]
    distribution = re.sub(r'[-_.]+', '-', parts[0]).lower()
    return Wheel(distribution, version, *tags, url, place, torch, device, kind)


class _Links(HTMLParser):
    """The addresses of a page's links, however broken the page is."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == 'a' and values.get('href') and 'data-yanked' not in values:
            self.found.append(values['href'] or '')


def parse_page(text: str, address: str) -> list[str]:
    """Addresses on a page of links, or in the JSON form that PyPI answers with."""
    try:
        files = json.loads(text)['files']
        found = [file['url'] for file in files if not file.get('yanked')]
    except (ValueError, KeyError, TypeError):
        parser = _Links()
        parser.feed(text)
        found = parser.found
    links = []
    for link in found:
        try:
            links.append(urljoin(address, link))
        except ValueError:  # not an address
            continue
    return links


# --- pip's settings -------------------------------------------------------------------------------


class PipSettings:
    """pip's options from its files and the environment; a word list per option.

    Args:
        environ: the environment, for the PIP_ variables and the places of the files.
        prefix: the environment that pip will install into, whose pip.conf counts too.
    """

    def __init__(self, environ: dict[str, str], prefix: str = '') -> None:
        self.values: dict[str, str] = {}
        home, own = environ.get('HOME', '/'), environ.get('PIP_CONFIG_FILE', '')
        folders = environ.get('XDG_CONFIG_DIRS') or '/etc/xdg'
        files = [f'{folder}/pip/pip.conf' for folder in folders.split(':')]
        user = environ.get('XDG_CONFIG_HOME') or f'{home}/.config'
        files += ['/etc/pip.conf', f'{home}/.pip/pip.conf', f'{user}/pip/pip.conf']
        files += [f'{prefix}/pip.conf'] if prefix else []
        parser = configparser.RawConfigParser()
        for path in [] if own == os.devnull else [*files, own]:
            try:
                parser.read([path] if path else [])
            except (configparser.Error, UnicodeDecodeError) as error:
                reason = str(error).splitlines()[0]
                raise SetupError(f'pip cannot read its settings: {path}: {reason}') from None
        for section in ('global', 'install'):
            if parser.has_section(section):
                self.values |= {self._key(name): value for name, value in parser.items(section)}
        for name, value in environ.items():
            if name.startswith('PIP_') and value.strip():
                self.values[self._key(name.removeprefix('PIP_'))] = value

    @staticmethod
    def _key(name: str) -> str:
        return name.lower().replace('_', '-')

    def words(self, name: str) -> list[str]:
        """The values of an option that may be given several times."""
        return self.values.get(name, '').split()

    def flag(self, name: str) -> bool:
        """Whether a switch is on."""
        return self.values.get(name, '').strip().lower() in ('1', 'true', 'yes', 'on')

    @property
    def indexes(self) -> list[str]:
        """Package indexes, without a slash at their ends."""
        if self.flag('no-index'):
            return []
        first = self.words('index-url')[-1:] or [PYPI]
        return [index.rstrip('/') for index in [*first, *self.words('extra-index-url')]]

    def limits(self, name: str) -> str:
        """What pip's constraint files say about a package."""
        lines = []
        for path in self.words('constraint'):
            try:
                lines += Path(path.removeprefix('file://')).read_text().splitlines()
            except (OSError, UnicodeDecodeError):
                continue  # a web address: pip looks at it
        return requirement(lines, name)

    def for_uv(self) -> tuple[list[str], str]:
        """The same settings as arguments of uv, or why there are none.

        uv reads neither pip's files nor its variables. It takes a package from the first index
        that has it unless told to compare all, as pip does.
        """
        same = {'find-links': '--find-links', 'constraint': '--constraint'}
        same |= {'extra-index-url': '--extra-index-url', 'trusted-host': '--allow-insecure-host'}
        same |= {'only-binary': '--only-binary', 'no-binary': '--no-binary'}
        switches = {'no-index': '--no-index', 'pre': '--pre', 'require-hashes': '--require-hashes'}
        # How pip shows its work and where it keeps its files is nothing that uv has to know; uv
        # knows certificates by the same variables.
        silent = {'config-file', 'no-input', 'disable-pip-version-check', 'root-user-action'}
        silent |= {'quiet', 'verbose', 'no-color', 'progress-bar', 'cache-dir', 'default-timeout'}
        silent |= {'timeout', 'retries', 'no-cache-dir', 'no-warn-script-location', 'cert', 'proxy'}
        silent |= {'prefer-binary', 'require-virtualenv', 'break-system-packages', 'exists-action'}
        arguments = ['--index-strategy', 'unsafe-best-match']
        for name, value in self.values.items():
            if name in same:
                arguments += [part for word in value.split() for part in (same[name], word)]
            elif name == 'index-url':
                arguments += ['--index-url', value.split()[-1]]
            elif name in switches:
                arguments += [switches[name]] if self.flag(name) else []
            elif name not in silent:
                return (
                    [],
                    f"pip's setting {name} = {value.strip()} has no counterpart that is known",
                )
        return arguments, ''


# --- questions ------------------------------------------------------------------------------------


@dataclass
class Page:
    """An answer: links, or why there are none."""

    links: list[str] = field(default_factory=list)
    problem: str = ''  # why it could not be read; '' also for what does not exist


class Web:
    """Asks for pages, many at once, within a time limit for each and one for all.

    Args:
        settings: pip's, for its certificate, proxy and trusted hosts.
        limit: seconds for a page.
        total: seconds for everything that is asked.
    """

    def __init__(self, settings: PipSettings, limit: float = LIMIT, total: float = TOTAL) -> None:
        self.limit = limit
        self.end = time.monotonic() + total
        self.trusted = set(settings.words('trusted-host'))
        proxy = settings.values.get('proxy', '').strip()
        self.proxies = (
            [urllib.request.ProxyHandler({'http': proxy, 'https': proxy})] if proxy else []
        )
        self.certificate = settings.values.get('cert', '').strip() or next(
            filter(None, map(os.environ.get, ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE'))), None
        )

    def ask(self, addresses: Iterable[str]) -> dict[str, Page]:
        """The pages at these addresses. One that does not answer in time has a problem."""
        addresses = list(dict.fromkeys(addresses))
        pages: dict[str, Page] = {}
        end = min(self.end, time.monotonic() + self.limit)
        # Daemons: a host name that is never resolved cannot hold up the end of the program.
        threads = [
            threading.Thread(target=self._ask, args=(address, pages, end), daemon=True)
            for address in addresses
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        late = Page(problem=f'no answer within {self.limit:g} s')
        return {address: pages.get(address, late) for address in addresses}

    def _ask(self, address: str, pages: dict[str, Page], end: float) -> None:
        try:
            pages[address] = Page(parse_page(*self.read(address, end)))
        except urllib.error.HTTPError as error:
            missing = error.code in (404, 410)
            pages[address] = Page(problem='' if missing else f'HTTP error {error.code}')
        except FileNotFoundError:
            pages[address] = Page()
        except Exception as error:  # whatever a page or a network can do: it is only a question
            reason = getattr(error, 'reason', None) or error
            text = str(getattr(reason, 'strerror', None) or reason or type(error).__name__)
            pages[address] = Page(problem=text.splitlines()[0])

    def read(self, address: str, end: float) -> tuple[str, str]:
        """The text at an address, and the address that it was found at."""
        parts = urlsplit(address)
        if parts.scheme in ('', 'file'):
            path = Path(unquote(parts.path))
            if path.is_dir() and (path / 'index.html').exists():
                path /= 'index.html'
            if path.is_dir():
                names = ''.join(f'<a href="{quote(name.name)}">' for name in sorted(path.iterdir()))
                return names, path.resolve().as_uri() + '/'
            if path.suffix == '.whl':
                return f'<a href="{quote(path.name)}">', path.resolve().as_uri()
            return path.read_text(errors='replace'), path.resolve().as_uri()
        user, _, host = parts.netloc.rpartition('@')
        request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))
        request.add_header('Accept', 'application/vnd.pypi.simple.v1+json, text/html;q=0.5')
        if user:
            token = base64.b64encode(unquote(user).encode()).decode()
            request.add_header('Authorization', f'Basic {token}')
        context = ssl.create_default_context(cafile=self.certificate)
        if self.trusted & {host, parts.hostname}:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(
            *self.proxies, urllib.request.HTTPSHandler(context=context)
        )
        data = b''
        with opener.open(request, timeout=max(0.1, end - time.monotonic())) as answer:
            while block := answer.read1(1 << 16):
                data += block
                if len(data) > LARGEST_PAGE or time.monotonic() > end:
                    raise TimeoutError(f'no answer within {self.limit:g} s')
            return data.decode('utf-8', 'replace'), answer.geturl()


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


def find_pythons(environ: dict[str, str]) -> list[Interpreter]:
    """The supported Pythons of this machine, the preferred one first, one per version.

    One that can make virtual environments comes before one that cannot, and one with headers
    before one without.
    """
    commands = [f'python{major}.{minor}' for major, minor in PYTHONS] + ['python3', 'python']
    pyenv = Path(environ.get('PYENV_ROOT') or Path(environ.get('HOME', '/'), '.pyenv'))
    for major, minor in PYTHONS:
        commands += map(str, sorted(pyenv.glob(f'versions/{major}.{minor}.*/bin/python3')))
    found: list[Interpreter | None] = [None] * len(commands)

    def look(index: int) -> None:
        found[index] = look_at(commands[index])

    threads = [threading.Thread(target=look, args=(index,)) for index in range(len(commands))]
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
    """The newest CUDA that the driver of the visible GPUs knows, (0, 0) if unknown; None if none."""
    if environ.get('CUDA_VISIBLE_DEVICES', '0').strip() in ('', '-1'):
        return None
    try:
        run = subprocess.run(['nvidia-smi'], capture_output=True, text=True, timeout=LIMIT)
        text = run.stdout if run.returncode == 0 else ''
    except (OSError, subprocess.TimeoutExpired):
        text = ''
    if match := re.search(r'CUDA[\w ]*Version: *(\d+)\.(\d+)', text):
        return int(match[1]), int(match[2])
    return (0, 0) if text or Path('/dev/nvidia0').exists() else None


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
        pip |= dict.fromkeys(links, 'links')
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
        for folder in sorted(Path(given.cache).glob('*')) if given.cache else []:
            page = Page([path.as_uri() for path in folder.glob('*.whl')])
            self._collect(str(folder), page, 'cache', 'onedl-mmcv')
        self.index_answers = not pages[root + '/'].problem
        groups = {match[0] for link in pages[root + '/'].links if (match := GROUP.search(link))}
        groups = {group for group in groups if self._device_fits(group.split('-')[0])}
        addresses = []
        for group in groups:
            page = f'{root}/{group}/simple/onedl-mmcv/'
            addresses += [page, f'{page}index.html']
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
        """The torch for a Python and a wheel of mmcv, or for building mmcv; None if there is none."""
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
        ranked = []
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
        if self.mmcv and refused:
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
        own = {'links': 'that PIP_FIND_LINKS or pip.conf names', 'cache': 'built here before'}
        if wheel is None:
            lines.append(f'no wheel of mmcv fits: {reason}. Building takes {given.minutes}')
        elif not wheel.torch:
            lines.append(
                f'the wheel {own.get(wheel.kind, "of the package index")} does not say for which '
                f'torch it is: if it does not load, mmcv is built ({given.minutes})'
            )
        elif given.installed or given.torch_spec:
            lines.append('the wheel is for the torch that was given')
        else:
            source = own.get(wheel.kind, '')
            lines.append(
                f'the newest torch that has a wheel of mmcv for Python {python.version[0]}.'
                f'{python.version[1]}' + (f', {source}' if source else '')
            )
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


def main() -> int:
    """Print the plan."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--python', default='', help='the only interpreter to consider')
    parser.add_argument('--installed', default='', help='version of the torch that is there')
    parser.add_argument('--active', action='store_true', help='the environment exists')
    parser.add_argument('--cache', default='', help="folder of set-up's own wheels")
    parser.add_argument('--jobs', choices=('cpu', 'cuda'), help='only print how many compilers')
    args = parser.parse_args()
    environ = dict(os.environ)
    if args.jobs:
        print(compilers(environ, args.jobs == 'cuda'))
        return 0
    try:
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
        prefix = str(Path(args.python).parents[1]) if args.python and args.active else ''
        settings = PipSettings(environ, prefix)
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
    arguments, reason = settings.for_uv()
    answers += [('uv', argument) for argument in arguments]
    answers += [('no-uv', reason)] if reason else []
    for key, value in answers:
        print(key, value, sep='\t')
    return 0


if __name__ == '__main__':
    sys.exit(main())
