"""The entry point of a tool: its status and messages."""

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
