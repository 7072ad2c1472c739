"""The entry point of a tool: its status and messages."""

import os
import subprocess
import sys

import pytest

from hybrid_mm.errors import UserError
from hybrid_mm.run.tool import debugging, tool


def test_status_and_messages_of_a_tool(capsys, monkeypatch):
    monkeypatch.delenv('HYBRID_MM_DEBUG', raising=False)

    @tool
    def main(argv):
        if argv[0] == 'user':
            raise UserError('wrong')
        if argv[0] == 'bug':
            raise ZeroDivisionError
        return dict(none=None, three=3)[argv[0]]

    assert (main(['none']), main(['three']), main(['user'])) == (0, 3, 2)
    assert capsys.readouterr().err == 'error: wrong\n'
    with pytest.raises(ZeroDivisionError):
        main(['bug'])
    for value, raises in (('1', True), ('0', False), ('', False)):
        monkeypatch.setenv('HYBRID_MM_DEBUG', value)
        assert debugging([]) == raises
    assert debugging(['x', '--debug'])
    monkeypatch.setenv('RANK', '3')
    assert main(['user']) == 2
    assert capsys.readouterr().err == '[rank 3] error: wrong\n'


PROGRAM = """
import os, sys
from hybrid_mm.run.tool import tool

@tool
def main(argv):
    {body}

sys.exit(main())
"""


@pytest.mark.parametrize(
    ('body', 'status', 'said'),
    [
        ('print("x" * 10**6)', 141, ''),
        ('for _ in range(10**5): print("line")', 141, ''),
        ('print("few")', 141, ''),  # found when the program ends
        ('print("few"); sys.exit(0)', 141, ''),
        ('import rich; rich.print("few", flush=True)', 141, ''),
        ('print("few"); raise ValueError("why")', 1, 'ValueError: why'),
        ('return 3', 3, ''),  # nothing that anybody would read
        ('os.open("to", os.O_WRONLY)', 2, 'error: to: No such file or directory'),
    ],
    ids=['long', 'lines', 'few', 'exit', 'rich', 'error', 'nothing', 'file'],
)
def test_reader_that_has_gone(body, status, said, tmp_path, monkeypatch):
    monkeypatch.delenv('PYTHONUNBUFFERED', raising=False)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, '-c', PROGRAM.format(body=body)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(writer)
    assert done.returncode == status, done.stderr
    assert said in done.stderr if said else not done.stderr


def test_pipe_of_another_process_keeps_its_error():
    body = 'os.close(r := os.pipe()[0]); os.write(r + 1, b"x")'
    command = [sys.executable, '-c', PROGRAM.format(body=body)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith('BrokenPipeError: [Errno 32] Broken pipe\n')
