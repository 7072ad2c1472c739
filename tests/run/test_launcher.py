"""The end of torchrun, which leaves the last word to its processes."""

import logging
import signal
from types import SimpleNamespace

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from hybrid_mm.run import launcher


def ends(monkeypatch, error=None):
    def torchrun(argv):
        assert argv == ['--standalone', 'x.py']
        if error is not None:
            raise error

    monkeypatch.setattr('torch.distributed.run.main', torchrun)
    return launcher.main(['--standalone', 'x.py'])


def failed(status):
    return ChildFailedError('x', {0: SimpleNamespace(exitcode=status, timestamp=1)})


def test_status(monkeypatch, capsys):
    monkeypatch.setattr(ChildFailedError, 'format_msg', lambda *args: '')
    assert ends(monkeypatch) == 0
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        assert ends(monkeypatch, SignalException('x', number)) == status
    for status in (2, 130, 143):
        assert ends(monkeypatch, failed(status)) == status
    assert ends(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == 'interrupted\n'
    assert ends(monkeypatch, failed(1)) == 1
    assert 'error: process 0 ended with status 1;' in capsys.readouterr().err
    assert ends(monkeypatch, failed(-9)) == 137
    assert 'process 0 was killed by signal 9;' in capsys.readouterr().err


def test_what_torchrun_says_of_a_signal(monkeypatch, caplog):
    ends(monkeypatch)
    logger = logging.getLogger('torch.distributed.elastic.multiprocessing.api')
    monkeypatch.setattr(logger, 'propagate', False)
    logger.addHandler(caplog.handler)
    logger.warning('Sending process %s closing signal %s', 1, 'SIGINT')
    logger.warning('something else')
    logger.removeHandler(caplog.handler)
    assert [record.msg for record in caplog.records] == ['something else']
