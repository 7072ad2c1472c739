"""Fenced blocks, commands and inline commands of Markdown files."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob('*.md')),
    *sorted((ROOT / 'docs').rglob('*.md')),
    *sorted((ROOT / 'configs').rglob('README.md')),
]
FENCE = re.compile(r'^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$')
DIRECTIVE = re.compile(r'<!-- test: not run: (?P<why>.+?) -->')
INLINE = re.compile(r'`((?:[A-Z_]+=\S+\s+)*(?:python|bash|pip|torchrun|srun)\s[^`]+)`')
PLACEHOLDER = re.compile(r'^[A-Z][A-Z_]*$')
"""What a reader replaces: CONFIG, CHECKPOINT, FILE, ..."""
TITLE = re.compile(r'^\*\*`(?P<path>[^`]+)`\*\*(?:, after `(?P<after>[^`]+)`:)?$')


@dataclass(frozen=True)
class Block:
    """A fenced block.

    ``title`` is the file that it is to be written to, in bold on the line before it, and ``after``
    the line of that file after which it is inserted; ``not_run`` is the reason that
    ``<!-- test: not run: REASON -->`` gives.
    """

    page: str
    line: int
    language: str
    title: str
    after: str
    text: str
    not_run: str

    def __str__(self) -> str:
        return f'{self.page}:{self.line}'


def blocks(path: Path) -> Iterator[Block]:
    """All fenced blocks of a page, those in lists as well."""
    lines = path.read_text().splitlines()
    page = path.relative_to(ROOT).as_posix()
    i = 0
    while i < len(lines):
        start = FENCE.match(lines[i])
        if not start:
            i += 1
            continue
        end = next(
            (j for j in range(i + 1, len(lines)) if lines[j].strip() == start['ticks']), None
        )
        assert end is not None, f'{page}:{i + 1}: the block has no end'
        before = next((line for line in reversed(lines[:i]) if line.strip()), '')
        directive = DIRECTIVE.search(before)
        title = TITLE.match(before)
        text = ''.join(line[len(start['indent']) :] + '\n' for line in lines[i + 1 : end])
        yield Block(
            page,
            i + 1,
            start['info'].strip(),
            title['path'] if title else '',
            (title['after'] or '') if title else '',
            text,
            directive['why'] if directive else '',
        )
        i = end + 1


def without_blocks(path: Path) -> str:
    """Text of a page with its fenced blocks left out, as many lines as before."""
    kept, ticks = [], None
    for line in path.read_text().splitlines():
        fence = FENCE.match(line)
        inside = ticks is not None
        if fence and not inside:
            ticks = fence['ticks']
        elif inside and line.strip() == ticks:
            ticks = None
        kept.append('' if fence or inside else line)
    return '\n'.join(kept)


def inline_commands(path: Path) -> Iterator[str]:
    """Commands between single backticks in the text of a page."""
    for match in INLINE.finditer(without_blocks(path)):
        command = ' '.join(match[1].split())
        if len(command.split()) > 1 and '...' not in command:
            yield command


def commands(text: str) -> Iterator[list[str]]:
    """Simple commands of a shell block as lists of words, assignments in front of them included.

    Lines that end in a backslash or within quotes go on in the next one.
    """
    waiting = ''
    for line in text.splitlines():
        waiting += line.removesuffix('\\') if line.endswith('\\') else line + '\n'
        if line.endswith('\\'):
            continue
        try:
            words = _words(waiting)
        except ValueError:  # No closing quotation
            continue
        waiting = ''
        command = []
        for word in [*words, ';']:
            if word in (';', '&&', '||', '|'):
                if command:
                    yield command
                command = []
            else:
                command.append(word)
    assert not waiting.strip(), f'a quote is not closed in: {waiting}'


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=';&|')
    lexer.whitespace_split = True
    return list(lexer)
