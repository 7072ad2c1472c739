"""What has come out so far, as JSON and Markdown: written after every task, never half."""

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hybrid_mm.benchmarks.gpu.task import BAD, CRASH, FAIL, HANG, PASS, SKIP, Result

NAME = 'gpu_check'
_MEANING = {
    PASS: 'right',
    FAIL: 'wrong results, or an exception',
    CRASH: 'took the process along',
    HANG: 'stopped: it did not end',
    SKIP: 'not done',
}


@dataclass
class Record:
    """Results of a run.

    Attributes:
        folder: Where the files go.
        command: How the tool was called.
        environment: The machine and its packages.
        results: What is done, in order.
        running: Tasks that are under way.
        open: Number of tasks that are left.
    """

    folder: Path
    command: str
    environment: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    open: int = 0
    began: float = field(default_factory=time.time)

    def begin(self, name: str) -> None:
        """Note that a task is under way: if the machine stops, the files say with what."""
        self.running.append(name)
        self.write()

    def add(self, result: Result) -> None:
        """Note what has come out of a task."""
        if result.name in self.running:
            self.running.remove(result.name)
        self.results.append(result)
        self.open -= 1
        self.write()

    def write(self) -> None:
        """Write both files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(self.folder / f'{NAME}.json', json.dumps(self.as_json(), indent=1) + '\n')
        _replace(self.folder / f'{NAME}.md', self.markdown())

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return dict(
            command=self.command,
            date=time.strftime('%Y-%m-%d %H:%M', time.localtime(self.began)),
            seconds=round(time.time() - self.began, 1),
            environment=self.environment,
            running=self.running,
            open=self.open,
            results=[asdict(result) for result in self.results],
        )

    def bad(self) -> list[Result]:
        """What is not right."""
        return [result for result in self.results if result.status in BAD]

    def summary(self) -> list[str]:
        """Lines that say what passed, what did not and by how much, and what was not done."""
        counts = Counter(result.status for result in self.results)
        lines = [
            ', '.join(f'{counts[s]} {s} ({text})' for s, text in _MEANING.items() if counts[s])
            or 'nothing done'
        ]
        lines += [f'{r.status} {r.name}: {r.text}' for r in self.bad()]
        reasons: dict[str, list[str]] = {}
        for result in self.results:
            if result.status == SKIP:
                reasons.setdefault(result.text, []).append(result.name)
        for reason, names in reasons.items():
            shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
            lines.append(f'SKIP {len(names)}: {reason} ({shown})')
        return lines

    def markdown(self) -> str:
        """Summary, and a table of every group."""
        left = f'; {self.open} tasks left' if self.open else ''
        lines = ['# Check of a GPU\n', f'`{self.command}`{left}\n']
        lines += [f'{key} {value};' for key, value in self.environment.items()]
        lines += ['', *(f'- {line}' for line in self.summary())]
        if self.running:
            lines.append(f'- under way: {", ".join(self.running)}')
        groups: dict[str, list[Result]] = {}
        for result in self.results:
            if result.status != SKIP:
                groups.setdefault(result.name.partition('/')[0], []).append(result)
        for group, results in groups.items():
            lines += [f'\n## {group}\n', *table(results)]
        for result in self.bad():
            if result.details:
                lines += [f'\n### {result.name}\n', '```text', result.details, '```']
        return '\n'.join(lines) + '\n'


def table(results: Sequence[Result]) -> list[str]:
    """Markdown table of results; of timings one line for each way to compute something."""
    rows = [result for result in results if 'rows' not in result.figures]
    lines = []
    if rows:
        lines += ['| task | | result | s |', '|---|---|---|---:|']
        lines += [f'| {r.name} | {r.status} | {_cell(r.text)} | {r.seconds:.1f} |' for r in rows]
    measured = [row for result in results for row in result.figures.get('rows', ())]
    if measured:
        heads = list(measured[0])
        lines += ['', '| ' + ' | '.join(heads) + ' |', '|' + '---|' * len(heads)]
        lines += ['| ' + ' | '.join(_cell(str(row[h])) for h in heads) + ' |' for row in measured]
    return lines


def _cell(text: str) -> str:
    return ' '.join(text.split()).replace('|', '/')


def _replace(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    temporary = path.with_suffix(f'{path.suffix}.part')
    with temporary.open('w') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
