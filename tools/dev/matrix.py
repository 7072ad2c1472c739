"""Build the environments of matrix.yml, install this package there from a wheel, and run checks.

    bash tools/dev/matrix.sh torch2.1 --only heads resume

``matrix.sh`` starts this with the Python of the set-up and says more. A check that passed for the
commit that is checked out is not run again (``--again``); a build that was interrupted goes on.
Exit status 1 if a check failed.
"""

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import yaml

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).with_name('matrix.yml')
PAGE, RECORD = ROOT / 'docs/installation.md', ROOT / 'docs/matrix.json'
BEGIN, END = '<!-- matrix:begin -->\n', '<!-- matrix:end -->'
PASS, FAIL, CANNOT = 'PASS', 'FAIL', 'cannot'
TOOLS = 'pytest pytest-timeout pytest-xdist hypothesis safetensors hatchling packaging'
"""What the checks need besides the packages."""
MIM = 'click colorama requests tabulate pandas rich model-index pyyaml'
"""What openmim needs; installed without its own dependencies, which ask for old releases."""
SHOWN = ('torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
ASK = """
import importlib.metadata as metadata, json, platform, sys
owners = metadata.packages_distributions() if sys.version_info >= (3, 10) else {}
found = {'Python': platform.python_version()}
for name in sys.argv[1:]:
    if owners.get(name):
        found[name] = f'{owners[name][0]} {metadata.version(owners[name][0])}'
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True)
class Environment:
    """An environment of ``matrix.yml``, which describes the fields."""

    name: str
    title: str
    python: str
    install: tuple[str, ...] = ()
    mmcv: str = ''
    setup: bool = False
    cannot: dict[str, str] = field(default_factory=dict)

    @property
    def pins(self) -> list[str]:
        """The requirements that hold for all that is installed later."""
        words = [word for line in (*self.install, self.mmcv) for word in line.split()]
        return [word for word in words if '==' in word]


@dataclass(frozen=True)
class Check:
    """A check of ``matrix.yml``, which describes the fields."""

    name: str
    title: str
    run: tuple[str, ...]
    needs: tuple[str, ...] = ()
    minutes: int = 30


@dataclass
class Result:
    """Outcome of a check in an environment.

    Attributes:
        status: PASS, FAIL or cannot.
        seconds: Time that it took.
        detail: Why it failed or cannot run, or what the last command said at its end.
        date: Day on which it ran.
        commit: What was checked out, with ``+`` if files differed from it.
    """

    status: str
    seconds: float
    detail: str
    date: str
    commit: str


class Impossible(Exception):
    """An environment that cannot be built on this machine."""


def read_lists(path: Path = LISTS) -> tuple[dict[str, Environment], dict[str, Check]]:
    """Environments and checks by name.

    Raises:
        ValueError: Unknown or missing fields, or a reason for a check that does not exist.
    """
    lists = yaml.safe_load(path.read_text())
    found: list[dict] = []
    for kind, entries in ((Environment, lists['environments']), (Check, lists['checks'])):
        found.append({})
        for name, fields in entries.items():
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
            try:
                found[-1][name] = kind(name, **values)
            except TypeError as error:
                raise ValueError(f'{path.name}: {name}: {error}') from None
    environments, checks = found
    for environment in environments.values():
        if unknown := set(environment.cannot) - set(checks):
            raise ValueError(f'{path.name}: {environment.name} cannot {unknown}: no such check')
    return environments, checks


# --- building ------------------------------------------------------------------------------------


def cache() -> Path:
    """Folder of environments, results and wheels."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'hybrid_mm' / 'matrix'


def find_python(version: str) -> str:
    """An interpreter of a version, e.g. '3.11', that works.

    Raises:
        Impossible: There is none on this machine.
    """
    versions = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv')) / 'versions'
    own = sorted(versions.glob(f'{version}.*/bin/python3'), reverse=True)
    code = f'import sys, venv; sys.exit("%d.%d" % sys.version_info[:2] != "{version}")'
    for candidate in (f'python{version}', *map(str, own), 'python3', sys.executable):
        # run, not just looked up: a shim of pyenv exists for versions that are not selected
        try:
            if subprocess.run([candidate, '-c', code], capture_output=True).returncode == 0:
                return shutil.which(candidate) or candidate
        except OSError:
            continue
    raise Impossible(f'no Python {version} on this machine')


class Build:
    """The folder of an environment: its Python, what is installed there, its logs."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.environment, self.folder = environment, folder
        self.python = folder / 'env/bin/python'
        self.log = folder / 'build.log'
        self.stamp = folder / 'built.json'

    def lock(self) -> None:
        """Keep other runs out of this environment until this one ends.

        Raises:
            Impossible: Another one is at it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.held = open(self.folder.with_name(f'{self.folder.name}.lock'), 'w')  # noqa: SIM115
        try:
            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Impossible('another run is at it') from None

    @property
    def path(self) -> str:
        """Where programs are looked for: those of the environment first."""
        return f'{self.python.parent}{os.pathsep}{os.environ["PATH"]}'

    @property
    def finished(self) -> bool:
        """Whether all but the package itself is installed, as the lists have it now."""
        wanted = json.dumps(asdict(self.environment), sort_keys=True)
        return self.stamp.is_file() and self.stamp.read_text() == wanted

    def call(self, *command, cwd: str | Path = '/', **variables: str) -> None:
        """Run a step of the build; what it prints goes to the log.

        Raises:
            RuntimeError: It failed; the message has the last line that it printed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        words = list(map(str, command))
        with open(self.log, 'a') as log:
            print(f'\n$ {shlex.join(words)}', file=log, flush=True)
            status = subprocess.run(
                words, cwd=cwd, env={**clean(), **variables}, stdout=log, stderr=log
            ).returncode
        if status:
            raise RuntimeError(f'{shlex.join(words)[:200]}: {last_words(self.log)} ({self.log})')

    def pip(self, *words) -> None:
        """Install something, keeping to the pinned releases."""
        pins = self.folder / 'pins.txt'
        pins.write_text('\n'.join(self.environment.pins))
        self.call(self.python, '-m', 'pip', 'install', '-q', '-c', pins, *words)

    def make(self, start: str) -> None:
        """Install everything but the package itself.

        Args:
            start: Interpreter that the environment is made from.
        """
        if self.finished:
            return
        shutil.rmtree(self.folder / 'env', ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.call(start, '-m', 'venv', self.folder / 'env')
        self.call(self.python, '-m', 'pip', 'install', '-q', '-U', 'pip', 'setuptools<82', 'wheel')
        if self.environment.setup:
            self.call('bash', ROOT / 'tools/setup.sh', VIRTUAL_ENV=str(self.folder / 'env'))
        for number, line in enumerate(self.environment.install):
            self.pip(*line.split())
            if number == 0 and self.environment.mmcv:  # after torch, before what needs mmcv
                self.install_mmcv()
        self.pip(*TOOLS.split())
        mim = 'onedl-mim' if self.environment.setup else 'openmim'
        self.pip(*MIM.split())
        self.pip('--no-deps', mim)
        self.stamp.write_text(json.dumps(asdict(self.environment), sort_keys=True))

    def wheels(self) -> Path:
        """Folder of the mmcv wheels that were built for this Python and torch."""
        torch = next((pin for pin in self.environment.pins if pin.startswith('torch==')), 'torch')
        return cache() / 'wheels' / f'python{self.environment.python}-{torch}-{platform.machine()}'

    def install_mmcv(self) -> None:
        """Install mmcv with its operators, from a wheel if there is one that works."""
        try:
            self.mmcv_from_wheel()
            return
        except RuntimeError:
            self.call(self.python, '-m', 'pip', 'uninstall', '-q', '-y', 'mmcv')
        print(f'  building {self.environment.mmcv}: about 20 minutes on two cores', flush=True)
        self.pip('ninja', 'psutil', 'packaging')
        source = self.wheels() / 'source'
        if not any(source.glob('*/setup.py')):
            self.call(
                self.python, '-m', 'pip', 'download', '-q', '--no-deps', '--no-build-isolation',
                '--no-binary', 'mmcv', '-d', source, self.environment.mmcv,
            )  # fmt: skip
            with tarfile.open(next(source.glob('*.tar.gz'))) as archive:
                archive.extractall(source)
        # the folder stays, and ninja takes up an interrupted build where it stopped
        (folder,) = (path.parent for path in source.glob('*/setup.py'))
        self.call(
            self.python, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation',
            '-w', self.wheels(), '.', cwd=folder,
            MMCV_WITH_OPS='1', FORCE_CUDA='0', MAX_JOBS=os.environ.get('MAX_JOBS', str(cores())),
            CFLAGS='-g0', LDFLAGS='-s', PATH=self.path,
        )  # fmt: skip
        shutil.rmtree(source)
        self.mmcv_from_wheel()

    def mmcv_from_wheel(self) -> None:
        """Install mmcv from the wheels that were kept, and those of ``PIP_FIND_LINKS``."""
        self.wheels().mkdir(parents=True, exist_ok=True)
        self.pip('--only-binary', 'mmcv', '--find-links', self.wheels(), self.environment.mmcv)
        self.call(self.python, '-c', 'import mmcv.ops')

    def install_wheel(self, wheel: Path) -> None:
        """Install this package as a user does, in place of the one that is there."""
        self.call(self.python, '-m', 'pip', 'uninstall', '-q', '-y', 'hybrid-mm')
        self.pip(wheel)
        self.call(
            self.python, '-c',
            'import hybrid_mm, sys; assert hybrid_mm.__file__.startswith(sys.prefix), hybrid_mm',
        )  # fmt: skip

    def versions(self) -> dict[str, str]:
        """Python and packages: ``{'mmcv': 'mmcv 2.1.0'}``, with the distribution that has it."""
        command = [self.python, '-c', ASK, *SHOWN]
        return json.loads(subprocess.check_output(command, cwd='/', env=clean(), text=True))

    def missing(self, module: str) -> bool:
        """Whether a module cannot be imported after this package, with which B5 is no hurdle."""
        code = 'import contextlib\nwith contextlib.suppress(ImportError): import hybrid_mm\n'
        command = [self.python, '-c', f'{code}import {module}']
        return bool(subprocess.run(command, cwd='/', env=clean(), capture_output=True).returncode)


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, '-m', 'hatchling', 'build', '-t', 'wheel', '-d', str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'no wheel could be built: {(done.stderr or done.stdout).strip()}')
    return next(folder.glob('hybrid_mm-*.whl'))


# --- checks --------------------------------------------------------------------------------------


def clean() -> dict[str, str]:
    """The environment variables without those that would let another Python or checkout in."""
    left_out = ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV', 'CONDA_PREFIX')
    kept = {k: v for k, v in os.environ.items() if k not in left_out}
    # nothing is written into the checkout
    return {**kept, 'PYTHONDONTWRITEBYTECODE': '1', 'PYTHONUNBUFFERED': '1'}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def golden() -> Path | None:
    """Folder of golden cases besides those of the checkout, if there is one."""
    folder = Path(os.environ.get('GOLDEN') or ROOT.parent / 'shared/golden')
    return folder.resolve() if folder.is_dir() else None


def commands(check: Check) -> list[list[str]]:
    """The commands of a check, without those for a folder that is not there."""
    pytest = 'python -m pytest -q -p no:cacheprovider -p skip_missing -m "not slow"'
    pytest += f' -n {cores()} --dist worksteal'
    places = dict(root=ROOT, golden=golden(), cores=cores(), pytest=pytest)
    lines = [line for line in check.run if '{golden}' not in line or places['golden']]
    return [shlex.split(line.format(**places)) for line in lines]


def last_words(log: Path) -> str:
    """What a log says went wrong, in a line: the first failed test, else the last line."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines()]
    lines = [line for line in lines if line and not line.startswith('[notice]')]
    failed = [line for line in lines if re.match(r'(FAILED|ERROR) \S+::', line)]
    errors = [line for line in lines if re.match(r'(\w+: )?(error|\w*Error)\b', line, re.I)]
    words = (failed[:1] or errors[-1:] or lines[-1:] or ['no output'])[0]
    words = re.sub(r'(\.\./)+\S*?(?=tests/)', '', words)  # as pytest names files of elsewhere
    words = words.replace(f'{ROOT}/', '').replace(str(Path.home()), '~')
    return words if len(words) <= 200 else words[:199] + '…'


def said(log: Path) -> str:
    """The summary at the end of a log of pytest or of a comparison, else ''."""
    text = log.read_text(errors='replace')
    found = re.findall(
        r'^(?:=+ )?(\d+ (?:passed|failed|errors?)\b.*?)(?: in [\d.]+s.*)?$', text, re.M
    )
    return found[-1] if found else ''


def end(process: subprocess.Popen) -> None:
    """End a command and what it has started: it is asked to, and then not asked."""
    for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(seconds)


def run_check(check: Check, build: Build, commit: str) -> Result:
    """Run the commands of a check in a folder of its own."""
    today = datetime.date.today().isoformat()
    reason = build.environment.cannot.get(check.name, '')
    lacks = [module for module in check.needs if build.missing(module)]
    if not reason and lacks:
        names = [f'operators of {name[:-4]}' if name.endswith('.ops') else name for name in lacks]
        reason = f'needs {" and ".join(names)}'
    if reason:
        return Result(CANNOT, 0, reason, today, commit)
    folder, log = build.folder / 'work' / check.name, build.folder / f'{check.name}.log'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    status = PASS
    variables = {**clean(), 'PATH': build.path, 'OMP_NUM_THREADS': '1'}
    variables['PYTHONPATH'] = str(LISTS.with_name('pytest_plugin'))
    with open(log, 'w') as file:
        for command in commands(check):
            print(f'$ {shlex.join(command)}', file=file, flush=True)
            left = check.minutes * 60 - (time.monotonic() - began)
            with subprocess.Popen(
                command, cwd=folder, env=variables, stdout=file, stderr=file,
                stdin=subprocess.DEVNULL, start_new_session=True,
            ) as process:  # fmt: skip
                try:
                    process.wait(max(left, 1))
                except BaseException as error:
                    end(process)
                    if not isinstance(error, subprocess.TimeoutExpired):
                        raise
                    print(f'error: not done within {check.minutes} minutes', file=file)
            if process.returncode:
                status = FAIL
                break
    seconds = round(time.monotonic() - began, 1)
    if status == PASS:
        shutil.rmtree(folder)
    detail = last_words(log) if status == FAIL else said(log)
    return Result(status, seconds, detail, today, commit)


# --- results -------------------------------------------------------------------------------------


def git(*words: str) -> str:
    """What git says about the checkout."""
    return subprocess.check_output(['git', *words], cwd=ROOT, text=True).strip()


def commit() -> str:
    """Hash of what is checked out, with ``+`` if files differ from it."""
    return git('rev-parse', '--short=10', 'HEAD') + ('+' if git('status', '--porcelain') else '')


def read_results(path: Path) -> dict:
    """``{'versions': ..., 'checks': {name: result}}`` of an environment."""
    if not path.is_file():
        return {'versions': {}, 'checks': {}}
    return json.loads(path.read_text())


def write_json(path: Path, content: dict) -> None:
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + '.new')
    new.write_text(json.dumps(content, indent=1) + '\n')
    new.replace(path)


def table(results: dict[str, dict]) -> str:
    """Versions and outcomes in Markdown, a column for each environment that has results."""
    environments, checks = read_lists()
    columns = [environments[name] for name in environments if results.get(name, {}).get('checks')]
    if not columns:
        return 'Not run yet.\n'
    rows = [['', *(column.title for column in columns)], ['---'] * (len(columns) + 1)]
    for name in ('Python', *SHOWN):
        cells = [results[column.name]['versions'].get(name, '') for column in columns]
        rows.append([name, *(short_version(name, cell) for cell in cells)])
    reasons: list[str] = []
    for check in checks.values():
        row = [check.title]
        for column in columns:
            found = results[column.name]['checks'].get(check.name)
            row.append(cell(found, reasons))
        rows.append(row)
    dates = [[r['date'] for r in results[c.name]['checks'].values()] for c in columns]
    rows.append(['last run', *(max(d) for d in dates)])
    lines = ['| ' + ' | '.join(row).replace('|  |', '| |') + ' |' for row in rows]
    notes = [f'{number}. {reason}' for number, reason in enumerate(reasons, 1)]
    return '\n'.join([*lines, *([''] if notes else []), *notes]) + '\n'


def short_version(name: str, version: str) -> str:
    """Version in a cell, with the distribution where its name is not that of the module."""
    owner, _, number = version.rpartition(' ')
    usual = {'mmseg': 'mmsegmentation'}.get(name, name)
    return f'{owner} {number}' if owner and owner != usual else number or '-'


def cell(result: dict | None, reasons: list[str]) -> str:
    """Outcome of a check in a cell; reasons are collected and numbered."""
    if result is None:
        return 'not run'
    if result['status'] == PASS:
        return f'yes ({duration(result["seconds"])})'
    if result['detail'] not in reasons:
        reasons.append(result['detail'])
    number = reasons.index(result['detail']) + 1
    return f'{"no" if result["status"] == CANNOT else "**fails**"} [{number}]'


def duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes."""
    return f'{seconds:.0f} s' if seconds < 120 else f'{seconds / 60:.0f} min'


def write_docs(results: dict[str, dict]) -> None:
    """Merge results into the record in docs/, and write the table of the page from that."""
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    environments, checks = read_lists()
    for name in environments:
        new = results.get(name)
        if new and new['checks']:
            old = record.get(name, {'checks': {}})
            merged = {**old['checks'], **new['checks']}
            kept = {check: merged[check] for check in checks if check in merged}
            record[name] = {'versions': new['versions'], 'checks': kept}
    record = {name: record[name] for name in environments if name in record}
    write_json(RECORD, record)
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + table(record) + END + rest.split(END, 1)[1])


# --- the program ---------------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the arguments, and refuse names that do not exist."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('names', nargs='*', metavar='NAME', help='environments (default: all)')
    parser.add_argument('--only', nargs='+', metavar='CHECK', help='these checks (default: all)')
    parser.add_argument('--again', action='store_true', help='also checks that passed already')
    parser.add_argument(
        '--keep',
        action='store_true',
        help='leave the environment there (default: removed once all of its checks pass)',
    )
    parser.add_argument('--list', action='store_true', help='print environments and checks')
    parser.add_argument('--dry-run', action='store_true', help='print the plan')
    parser.add_argument(
        '--write-docs',
        action='store_true',
        help='run nothing: write the kept results into docs/matrix.json and docs/installation.md',
    )
    args = parser.parse_args(argv)
    environments, checks = read_lists()
    for kind, names, known in (
        ('environment', args.names, environments),
        ('check', args.only or [], checks),
    ):
        if unknown := [name for name in names if name not in known]:
            parser.error(f'no {kind} {unknown[0]}; there are {", ".join(known)}')
    return args


def to_run(wanted: Iterable[Check], results: dict, now: str, again: bool) -> list[Check]:
    """The checks that have not passed for this commit."""
    done = {
        name
        for name, result in results['checks'].items()
        if result['status'] == PASS and result['commit'] == now and not now.endswith('+')
    }
    return [check for check in wanted if again or check.name not in done]


def main(argv: list[str] | None = None) -> int:
    """Build, check, and print what was found."""
    args = parse(argv)
    environments, checks = read_lists()
    chosen = [environments[name] for name in args.names or environments]
    wanted = [checks[name] for name in args.only or checks]
    if args.list:
        for kind, entries in (('environment', environments), ('check', checks)):
            for entry in entries.values():
                print(f'{kind:12} {entry.name:13} {entry.title}')
        return 0
    kept = {name: cache() / 'results' / f'{name}.json' for name in environments}
    if args.write_docs:
        write_docs({name: read_results(kept[name]) for name in args.names or environments})
        print(f'written: {RECORD.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}')
        return 0
    now, failed = commit(), False
    for number in (signal.SIGTERM, signal.SIGINT):  # ends what a check has started, see run_check
        signal.signal(number, stop)
    for environment in chosen:
        build = Build(environment, cache() / environment.name)
        results = read_results(kept[environment.name])
        left = to_run(wanted, results, now, args.again)
        print(f'{environment.name}: {environment.title}', flush=True)
        if args.dry_run:
            print_plan(build, left)
            continue
        if not left:
            print(f'  all passed for {now}; --again runs them once more')
            continue
        before = git('status', '--porcelain')
        try:
            began = time.monotonic()
            start = find_python(environment.python)
            build.lock()
            build.make(start)
            build.install_wheel(build_wheel(build.folder / 'wheel'))
        except (Impossible, RuntimeError) as error:
            status = CANNOT if isinstance(error, Impossible) else FAIL
            failed = failed or status == FAIL
            print(f'  {status:6} environment: {error}', flush=True)
            continue
        print(f'  ready    environment   {duration(time.monotonic() - began)}', flush=True)
        results['versions'] = build.versions()
        outcomes = []
        for check in left:
            result = run_check(check, build, now)
            outcomes.append(result.status)
            results['checks'][check.name] = asdict(result)
            write_json(kept[environment.name], results)
            log = f'  ({build.folder / check.name}.log)' if result.status == FAIL else ''
            print(
                f'  {result.status:8} {check.name:13} {duration(result.seconds):>7}  '
                f'{result.detail}{log}',
                flush=True,
            )
        new = set(git('status', '--porcelain').splitlines()) - set(before.splitlines())
        if new:
            outcomes.append(FAIL)
            print(f'  {FAIL:8} git status: {", ".join(sorted(new))}')
        failed = failed or FAIL in outcomes
        if not args.keep and FAIL not in outcomes and not args.only:
            shutil.rmtree(build.folder)
    return int(failed)


def stop(number: int, frame: FrameType | None) -> None:
    """End as Python ends for Ctrl-C; the results so far are kept."""
    raise KeyboardInterrupt


def print_plan(build: Build, left: list[Check]) -> None:
    """What would be installed and run."""
    environment = build.environment
    try:
        print(f'  Python: {find_python(environment.python)}')
    except Impossible as error:
        print(f'  cannot: {error}')
        return
    if build.finished:
        print(f'  environment: {build.folder / "env"}')
    elif environment.setup:
        print('  install: bash tools/setup.sh')
    else:
        for line in environment.install:
            print(f'  install: {line}')
        if environment.mmcv:
            there = any(build.wheels().glob('*.whl'))
            how = 'from the wheel kept here' if there else 'from PIP_FIND_LINKS, or built: 20 min'
            print(f'  install: {environment.mmcv}, {how}')
    for check in left:
        for command in commands(check):
            print(f'  {check.name}: {shlex.join(command).replace(str(ROOT), ".")}')


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit('interrupted; the same command goes on from here')
