"""A web server on this machine that does all that servers of files do, and what they should not."""

import contextlib
import gzip
import http.server
import re
import socket
import threading

import pytest
import torch

from hybrid_mm.checkpoint_files import download
from hybrid_mm.compat import safe_loading


class Server:
    """A server of one content for all paths, or of several by path, with faults.

    Args:
        options: Whether it knows `ranges`, its `etag`, bytes after which it has to `stop`, each for
            one answer, and whether what it sends is `chunked`, or compressed (`gzip`).

    Attributes:
        status, headers: Of its answers.
        pause, pauses: Seconds before an answer, and before every part of one.
        asked: Paths and headers of the requests.
    """

    def __init__(self, content, **options):
        self.options = dict(ranges=True, etag='"one"', stop=[], chunked=False, gzip=False) | options
        self.content, self.asked = content, []
        self.status, self.headers, self.pause, self.pauses = 200, {}, 0.0, 0.0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self):
                outer.asked.append((self.path, dict(self.headers)))
                with contextlib.suppress(ConnectionError):  # of one who has seen enough
                    outer.answer(self)

            def log_message(self, *args):
                pass

        self.web = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.web.daemon_threads = True
        threading.Thread(target=self.web.serve_forever, args=(0.01,), daemon=True).start()
        self.base = f'http://127.0.0.1:{self.web.server_port}'
        self.url = f'{self.base}/net.pth'

    def answer(self, handler):
        options = self.options
        threading.Event().wait(self.pause)  # the fixture `fork` does without sleep
        if handler.path.startswith('/to/'):
            handler.send_response(int(handler.path.split('/')[2]))
            handler.send_header('Location', '/net.pth')
            handler.send_header('Content-Length', '0')
            handler.end_headers()
            return
        body, status = self.content, self.status
        if isinstance(body, dict):
            status = status if handler.path in body else 404
            body = body.get(handler.path, b'')
        if options['gzip']:
            body = gzip.compress(body, 1)
        headers = {'ETag': options['etag']} if options['etag'] else {}
        asked = re.fullmatch(r'bytes=(\d+)-', handler.headers.get('Range') or '')
        same = handler.headers.get('If-Range') in (None, options['etag'])
        if asked and options['ranges'] and same and status == 200:
            start, status = int(asked[1]), 206
            if start >= len(body):
                handler.send_response(416)
                handler.send_header('Content-Length', '0')
                handler.end_headers()
                return
            headers['Content-Range'] = f'bytes {start}-{len(body) - 1}/{len(body)}'
            body = body[start:]
        if options['gzip']:
            headers['Content-Encoding'] = 'gzip'
        headers |= {'Transfer-Encoding': 'chunked'} if options['chunked'] else {}
        if not options['chunked']:
            headers['Content-Length'] = str(len(body))
        handler.send_response(status)
        for name, value in (headers | self.headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        stop = options['stop'].pop(0) if options['stop'] else len(body)
        for i in range(0, min(stop, len(body)), 1 << 18):
            threading.Event().wait(self.pauses)
            block = body[i : min(i + (1 << 18), stop)]
            handler.wfile.write(
                b'%x\r\n%s\r\n' % (len(block), block) if options['chunked'] else block
            )
        if stop < len(body):
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif options['chunked']:
            handler.wfile.write(b'0\r\n\r\n')

    @property
    def ranges(self):
        return [headers.get('Range') for _, headers in self.asked]


@pytest.fixture
def serve():
    started = []

    def start(content, **options):
        started.append(Server(content, **options))
        return started[-1]

    yield start
    for server in started:
        server.web.shutdown()
        server.web.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """No pauses, no proxies of this machine, an empty cache."""
    monkeypatch.setattr(download, 'PAUSES', (0, 0, 0))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'cache'))
    for name in ('http', 'https', 'all', 'no'):
        monkeypatch.delenv(f'{name}_proxy', raising=False)
        monkeypatch.delenv(f'{name}_proxy'.upper(), raising=False)


@pytest.fixture
def nobody():
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return f'http://127.0.0.1:{probe.getsockname()[1]}/net.pth'


@pytest.fixture(params=['torch', 'ours'])
def by(request, monkeypatch):
    """Who reads a file of torch: the installed release, or what reads it for older ones."""
    if request.param == 'ours':
        monkeypatch.setattr(safe_loading, 'torch_is_safe', lambda: False)
    return request.param
