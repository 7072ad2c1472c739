"""``--help`` of every tool: an example, and a text for each option."""

import argparse
import json
import re
import subprocess
import sys

import pytest

from ..conftest import ROOT, load_tool

TOOLS = sorted(
    path.relative_to(ROOT / 'tools').with_suffix('').as_posix()
    for path in (ROOT / 'tools').rglob('*.py')
    if "if __name__ == '__main__'" in path.read_text()
    # those that write what a peer computes have no options, and the peer may not be there
    and re.search(r'\b(ArgumentParser|options\.parser|parse_args)\(', path.read_text())
)


class _Captured(Exception):
    pass


def parser_of(main, monkeypatch) -> argparse.ArgumentParser:
    """Parser that a tool builds."""
    found = []

    def parse(self, *_, **__):
        found.append(self)
        raise _Captured

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse)
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_known_args', parse)
    with pytest.raises(_Captured):
        main([])
    return found[0]


def parts(parser):
    """The parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                yield from parts(child)


@pytest.mark.parametrize('name', [*TOOLS, 'hybrid_mm'])
def test_every_option_is_explained(name, monkeypatch):
    if name == 'hybrid_mm':
        from hybrid_mm.__main__ import main
    else:
        main = load_tool(name).main
    parser = parser_of(main, monkeypatch)
    silent = [
        f'{part.prog} {"/".join(action.option_strings) or action.dest}'
        for part in parts(parser)
        for action in part._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert not silent
    assert parser.description


# those that write what a peer computes import it first
FIRST = ('dev/peer', 'dev/golden', 'dev/generate_')
LIGHT = [name for name in TOOLS if not name.startswith(FIRST)]
LINES = [
    *([f'tools/{name}.py', flag] for name in LIGHT for flag in ('--help', '--no-such-flag')),
    *(['tools/train.py', *words] for words in ([], ['a.py', '--seed', 'x'], ['a.py', '--amp=x'])),
    *(['hybrid_mm', *words, '--help'] for words in ([], ['list'], ['new'], ['weights'])),
    *(['hybrid_mm', 'weights', word, '--help'] for word in ('list', 'get', 'path', 'check')),
    *(['hybrid_mm', *words] for words in ([], ['new'], ['new', '--head', 'x'], ['nothing'])),
]


def test_lists_need_neither_torch_nor_mmengine():
    code = """
import runpy, sys
sys.modules.update(dict.fromkeys(('torch', 'mmengine', 'numpy', 'rich')))  # to import them fails
for line in ('list', 'list nat --json', 'weights list', 'weights list nat', 'weights path x'):
    sys.argv = ['hybrid_mm', *line.split()]
    try:
        runpy.run_module('hybrid_mm', run_name='__main__')
    except SystemExit as end:
        assert end.code == (2 if line.endswith('x') else 0), line
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'there are no weights of this name' in done.stderr


def test_arguments_are_read_before_anything_slow_is_imported():
    code = """
import contextlib, io, json, runpy, sys
lines, slow = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(slow))  # to import them is an error
for line in lines:
    sys.argv, sys.path[0] = line, line[0].rpartition('/')[0]  # as Python does for a script
    start = runpy.run_module if line[0] == 'hybrid_mm' else runpy.run_path
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            start(line[0], run_name='__main__')
        except SystemExit as end:
            assert end.code == (0 if '--help' in line else 2), (line, end.code, said.getvalue())
    assert 'usage: ' in said.getvalue(), line
"""
    slow = ('torch', 'mmengine', 'numpy', 'rich', 'matplotlib')
    command = [sys.executable, '-c', code, json.dumps([LINES, slow])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
