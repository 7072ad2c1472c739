"""Planted mistakes: which of them would the tests notice?

    python tools/dev/mutants.py                     all rooms: minutes to hours
    python tools/dev/mutants.py layers configs      some rooms
    python tools/dev/mutants.py layers --file norm  those whose file has that in its name
    python tools/dev/mutants.py layers --survivors  those that survived last time

``tools/dev/mutants/ROOM.yml`` lists mistakes: ``file``, ``old`` (a text that the file holds exactly
once), ``new``, ``note``, and for those that nothing can notice ``survives`` with the reason. Each
is planted in a copy of the checkout, where the tests that belong to the file run until one fails
(:mod:`select_tests` chooses them). A mistake that no test notices survives; the survivors are
printed by room. Every test that noticed one is run once more on the checkout as it is, so that a
test that fails anyhow counts for nothing.

The status is 0 if no mistake survives but those that say why, and every list fits the files.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))
from select_tests import Sources  # noqa: E402

LISTS = Path(__file__).parent / 'mutants'
STATE = ROOT / 'work_dirs' / 'mutants.json'
# What takes seconds to import: once, in the process from which those of the tests are forked.
HEAVY = ('torch', 'torchvision', 'cv2', 'mmengine.runner', 'mmcv.ops', 'mmdet.models',
         'mmdet.datasets', 'mmdet.evaluation', 'mmseg.models', 'mmpretrain.models',
         'pytest', 'hypothesis', 'safetensors.torch')  # fmt: skip
FAILED = re.compile(r'^(?:FAILED|ERROR) (.+?)(?: - .*)?$', re.M)  # ids may hold blanks
NOTICED, SURVIVED, NO_TEST, SLOW = 'noticed', 'SURVIVED', 'NO TEST', 'OUT OF TIME'


@dataclass
class Mutant:
    """One planted mistake."""

    room: str
    number: int
    file: str
    old: str
    new: str
    note: str
    survives: str = ''

    @property
    def name(self) -> str:
        """Room and place in the list, from 1."""
        return f'{self.room}:{self.number}'

    def defect(self, root: Path) -> str:
        """Why it cannot be planted, or ''."""
        path = root / self.file
        if not path.is_file():
            return f'no file {self.file}'
        count = path.read_text().count(self.old)
        if count != 1:
            return f'{self.file} holds `old` {count} times instead of once: {self.old!r}'
        return '' if self.old != self.new else 'old and new are the same'


def read_lists(rooms: list[str]) -> list[Mutant]:
    """The mistakes of some rooms, or of all.

    Raises:
        ValueError: No such room, or an entry without or with unknown keys.
    """
    known = sorted(path.stem for path in LISTS.glob('*.yml'))
    for room in rooms:
        if room not in known:
            raise ValueError(f'no room {room!r}; known are {", ".join(known)}')
    found = []
    for room in rooms or known:
        entries = yaml.safe_load((LISTS / f'{room}.yml').read_text()) or []
        for number, entry in enumerate(entries, 1):
            try:
                found.append(Mutant(room, number, **entry))
            except TypeError as error:
                raise ValueError(f'{room}.yml, entry {number}: {error}') from None
    return found


def copy_checkout(target: Path) -> None:
    """Copy what git knows or would take, and a link to each folder of data beside the project."""
    names = (
        subprocess.run(
            ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        .stdout.decode()
        .split('\0')
    )
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    subprocess.run(['git', 'init', '-q'], cwd=target, check=True)  # some tests ask git


@contextlib.contextmanager
def planted(mutant: Mutant, root: Path):
    """The copy with one mistake."""
    path = root / mutant.file
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        yield
    finally:
        path.write_text(text)


def run_tests(arguments: list[str], root: Path, log: Path, seconds: float) -> int | None:
    """Run pytest in a child of this process; its status, or None if it ran out of time."""
    child = os.fork()
    if not child:
        status = 70
        try:
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(root)
            sys.path.insert(0, str(root))
            os.environ.update(PYTHONPATH=str(root), PYTHONDONTWRITEBYTECODE='1')
            sys.dont_write_bytecode = True
            import pytest

            status = pytest.main(
                [
                    '-x',
                    '-q',
                    '-rfE',
                    '--tb=line',
                    '-p',
                    'no:cacheprovider',
                    '-p',
                    'no:xdist',
                    '-m',
                    'not slow',
                    *arguments,
                ]
            )
        finally:
            sys.stdout.flush()
            os._exit(int(status))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def judge(mutant: Mutant, root: Path, sources: Sources, seconds: float) -> tuple[str, str]:
    """Outcome for one mistake, and the test that noticed it."""
    stages = sources.stages({root / mutant.file})
    log = root.parent / f'{root.name}.log'
    ran = False
    with planted(mutant, root):
        for stage in stages:
            status = run_tests(stage.arguments(), root, log, seconds)
            if status is None:
                return SLOW, ' '.join(stage.arguments())
            if status not in (0, 5):
                failed = FAILED.findall(log.read_text())
                return NOTICED, failed[0] if failed else stage.files[0]
            ran |= status == 0
    return (SURVIVED if ran else NO_TEST), ''


def work(share: list[Mutant], root: Path, seconds: float, answers) -> None:
    """Judge some mistakes in one copy."""
    os.environ['OMP_NUM_THREADS'] = '1'
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter('ignore')
        for name in HEAVY:
            with contextlib.suppress(ImportError):
                __import__(name)
    sources = Sources(root)
    while True:
        try:
            mutant = share.get_nowait()
        except Exception:  # the queue is empty
            break
        began = time.monotonic()
        outcome, test = judge(mutant, root, sources, seconds)
        answers.put((mutant, outcome, test, time.monotonic() - began))
    answers.put(None)


def broken_tests(tests: set[str], root: Path) -> set[str]:
    """Those tests that fail without a mistake as well."""
    tests = {test for test in tests if (root / test.partition('::')[0]).is_file()}
    if not tests:
        return set()
    options = ['-q', '-rfE', '--tb=no', '-p', 'no:cacheprovider']
    out = subprocess.run(
        [sys.executable, '-m', 'pytest', *options, *sorted(tests)],
        cwd=root,
        env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    if out.returncode not in (0, 1):
        raise RuntimeError(f'the tests that noticed mistakes cannot be run again:\n{out.stdout}')
    return set(FAILED.findall(out.stdout))


def main(argv: list[str] | None = None) -> int:
    """Plant the mistakes of some rooms and report."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('rooms', nargs='*', help='names of the lists (default: all)')
    parser.add_argument('--file', help='only mistakes whose file has this in its name')
    parser.add_argument(
        '--survivors', action='store_true', help='only those that nothing noticed last time'
    )
    parser.add_argument('--number', type=int, nargs='+', help='only these entries of the lists')
    parser.add_argument(
        '--jobs',
        type=int,
        default=min(os.cpu_count() or 1, 2),
        help='copies in which tests run at once',
    )
    parser.add_argument('--seconds', type=float, default=600, help='limit of one run of pytest')
    parser.add_argument('--check', action='store_true', help='only whether the lists fit the files')
    args = parser.parse_args(argv)
    try:
        mutants = read_lists(args.rooms)
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    defects = {m.name: text for m in mutants if (text := m.defect(ROOT))}
    for name, text in defects.items():
        print(f'{name}: {text}')
    if args.check:
        print(f'{len(mutants)} planted mistakes, {len(defects)} do not fit')
        return int(bool(defects))
    state = json.loads(STATE.read_text()) if STATE.is_file() else {}
    chosen = [
        m
        for m in mutants
        if m.name not in defects
        and (not args.file or args.file in m.file)
        and (not args.number or m.number in args.number)
        and (not args.survivors or state.get(m.name) != NOTICED)
    ]

    context = multiprocessing.get_context('spawn')
    queue, answers = context.Queue(), context.Queue()
    for mutant in chosen:
        queue.put(mutant)
    outcomes: dict[str, str] = {}
    noticed_by: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder) / f'copy{i}' for i in range(args.jobs)]
        for copy in copies:
            copy.mkdir()
            copy_checkout(copy)
        time.sleep(0.1)  # the queue's thread has filled it
        workers = [
            context.Process(target=work, args=(queue, copy, args.seconds, answers))
            for copy in copies
        ]
        for worker in workers:
            worker.start()
        running = len(workers)
        while running:
            answer = answers.get()
            if answer is None:
                running -= 1
                continue
            mutant, outcome, test, seconds = answer
            outcomes[mutant.name], noticed_by[mutant.name] = outcome, test
            print(
                f'{len(outcomes):4d}/{len(chosen)} {outcome:9} {seconds:5.0f} s  {mutant.name:14}'
                f' {mutant.file}  {mutant.note}  {test}',
                flush=True,
            )
        broken = broken_tests(set(noticed_by.values()), copies[0])
    for name, test in noticed_by.items():
        if test in broken:
            outcomes[name] = f'UNJUDGED: {test} fails without it'
    STATE.parent.mkdir(parents=True, exist_ok=True)
    STATE.write_text(json.dumps({**state, **outcomes}, indent=1))
    return report([m for m in chosen if m.name in outcomes], outcomes, defects)


def report(mutants: list[Mutant], outcomes: dict[str, str], defects: dict[str, str]) -> int:
    """Print a line per room and the survivors; the exit status."""
    print(f'\n{"room":14} {"planted":>8} {"survived":>9} {"explained":>10}')
    unexplained = 0
    for room in sorted({m.room for m in mutants}):
        own = [m for m in mutants if m.room == room]
        left = [m for m in own if outcomes[m.name] != NOTICED]
        explained = sum(bool(m.survives) for m in left)
        unexplained += len(left) - explained
        print(f'{room:14} {len(own):8d} {len(left):9d} {explained:10d}')
    print()
    for m in mutants:
        if outcomes[m.name] != NOTICED:
            reason = f'survives: {m.survives}' if m.survives else outcomes[m.name]
            print(f'{m.name:14} {m.file}: {m.note} ({reason})')
        elif m.survives:
            print(f'{m.name:14} {m.file}: {m.note} (noticed, although the list says it survives)')
    return int(bool(unexplained or defects))


if __name__ == '__main__':
    sys.exit(main())
