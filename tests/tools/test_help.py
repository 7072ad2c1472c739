"""``--help`` of every tool: an example, and a text for each option."""

import argparse
import re

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
