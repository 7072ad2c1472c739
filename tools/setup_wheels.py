"""Which wheels can be had: versions, names of wheels, pip's settings, and pages that list wheels.

A part of tools/setup_plan.py. Only the standard library is used, so that any Python can run it
before anything is installed.
"""

from __future__ import annotations

import base64
import configparser
import json
import os
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

PYPI = 'https://pypi.org/simple'
LIMIT = 5.0  # seconds for a page
TOTAL = 12.0  # seconds for all pages
LARGEST_PAGE = 32 << 20  # bytes


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
    pythons, abis, platforms = (frozenset(part.split('.')) for part in parts[-3:])
    distribution = re.sub(r'[-_.]+', '-', parts[0]).lower()
    return Wheel(distribution, version, pythons, abis, platforms, url, place, torch, device, kind)


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
        handlers: list[urllib.request.BaseHandler] = [*self.proxies]
        if parts.scheme == 'https':
            context = ssl.create_default_context(cafile=self.certificate)
            if self.trusted & {host, parts.hostname}:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            handlers.append(urllib.request.HTTPSHandler(context=context))
        opener = urllib.request.build_opener(*handlers)
        data = b''
        with opener.open(request, timeout=max(0.1, end - time.monotonic())) as answer:
            while block := answer.read1(1 << 16):
                data += block
                if len(data) > LARGEST_PAGE or time.monotonic() > end:
                    raise TimeoutError(f'no answer within {self.limit:g} s')
            return data.decode('utf-8', 'replace'), answer.geturl()
