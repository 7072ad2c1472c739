"""Downloads from a real server on this machine that does all that servers do."""

import errno
import gzip
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hybrid_mm.checkpoint_files import connections, turns
from hybrid_mm.checkpoint_files import download as module
from hybrid_mm.checkpoint_files.download import DownloadError, Fingerprint, download_file

CONTENT = bytes(range(256)) * 4096  # 1 MiB
KNOWN = Fingerprint(sha256=hashlib.sha256(CONTENT).hexdigest()[:8], size=len(CONTENT))


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'cache' / 'net.pth'


def files(path):
    return sorted(p.name for p in path.parent.iterdir()) if path.parent.exists() else []


@pytest.fixture
def serve(serve):
    return lambda content=CONTENT, **options: serve(content, **options)


def test_once(serve, path, capsys, nobody):
    server = serve()
    for _ in range(2):
        assert download_file([server.url], path, KNOWN) == path
    assert path.read_bytes() == CONTENT and files(path) == ['net.pth']
    assert len(server.asked) == 1
    assert capsys.readouterr().err == f'downloading {server.url} (1.05 MB)\n'  # nobody watches
    assert oct(path.stat().st_mode & 0o777) == oct(0o666 & ~umask())


def umask():
    before = os.umask(0o22)
    os.umask(before)
    return before


@pytest.mark.parametrize('code', [301, 302, 303, 307, 308])
def test_redirect(serve, path, code):
    server = serve(stop=[300_000])
    download_file([f'{server.base}/to/{code}/net.pth'], path, KNOWN)
    assert path.read_bytes() == CONTENT
    assert server.ranges[1] is None and server.ranges[-1] == 'bytes=300000-'  # also after it


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(chunked=True),
        dict(etag='W/"weak"'),
        dict(etag=None),
        dict(etag=None, ranges=False),
        dict(etag=None, gzip=True),
        dict(gzip=True, chunked=True),
    ],
    ids=str,
)
@pytest.mark.parametrize('known', [KNOWN, Fingerprint()], ids=['hash', 'unknown'])
def test_server_that_breaks_off(serve, path, options, known):
    server = serve(stop=[0, 3000], **options)
    download_file([server.url], path, known)
    assert path.read_bytes() == CONTENT and files(path) == ['net.pth']
    assert len(server.asked) == 3
    able = 'gzip' not in options and (known is KNOWN or 'etag' not in options)
    # a block of a chunked body that is not whole is lost
    assert (server.ranges[-1] is not None) == (able and 'chunked' not in options) or (
        'chunked' in options
    )


def test_redirects_in_a_circle(serve, path):
    server = serve()
    server.status, server.headers = 302, {'Location': '/net.pth'}
    with pytest.raises(DownloadError, match=r'^HTTP 302 .* infinite loop$'):
        download_file([server.url], path)


def test_compressed_in_several_parts(serve, path):
    server = serve(b''.join(gzip.compress(part, 1) for part in (CONTENT[:999], CONTENT[999:])))
    server.headers = {'Content-Encoding': 'gzip'}
    download_file([server.url], path)
    assert path.read_bytes() == CONTENT


def test_a_body_that_does_not_end(serve, path, monkeypatch, capsys):
    monkeypatch.setattr(module, '_EVERY', 0)
    server = serve(4 * CONTENT, chunked=True)
    with pytest.raises(DownloadError, match=f'gives more than the {len(CONTENT)} bytes'):
        download_file([server.url], path, Fingerprint(size=len(CONTENT)))
    assert files(path) == [] and ': 4.19 MB of ' not in capsys.readouterr().err


def test_slow_server(serve, path, monkeypatch, capsys):
    """What came counts, however little; and somebody is told how far it is."""
    monkeypatch.setattr(connections, 'TIMEOUT', 0.3)
    monkeypatch.setattr(module, '_EVERY', 0)
    server = serve(CONTENT[: 1 << 19])
    server.pauses = 0.2
    download_file([server.url], path)
    assert f'downloading {server.url}: 262 kB of 524 kB\n' in capsys.readouterr().err


def test_goes_on_in_a_later_process(serve, path):
    server = serve(stop=[500_000] + [0] * 5)
    with pytest.raises(DownloadError, match='broke off after 500000 of 1048576 bytes') as caught:
        download_file([server.url], path)
    assert caught.value.away
    assert not path.exists() and [Path(name).suffix for name in files(path)] == ['.part', '.json']
    server.options['stop'].clear()
    download_file([server.url], path)
    assert path.read_bytes() == CONTENT and files(path) == ['net.pth']
    path_headers = server.asked[-1][1]
    assert path_headers['Range'] == 'bytes=500000-' and path_headers['If-Range'] == '"one"'


@pytest.mark.parametrize('change', ['etag', 'size', 'range', 'shorter', 'lies', 'note'])
def test_a_file_that_changed_meanwhile_begins_anew(serve, path, change):
    server = serve(stop=[500_000] + [0] * 5)
    with pytest.raises(DownloadError):
        download_file([server.url], path)
    server.options['stop'].clear()
    new = server.content = CONTENT[::-1]
    if change == 'etag':
        server.options['etag'] = '"two"'
    elif change == 'size':  # a server that does not compare
        new = server.content = CONTENT[::-1] + b'more'
    elif change == 'shorter':
        new = server.content = CONTENT[:1000]
    elif change == 'range':
        server.headers['Content-Range'] = 'bytes 0-1/1048576'
    elif change == 'lies':  # all looks the same, and only the hash tells
        known = Fingerprint(sha256=hashlib.sha256(new).hexdigest())
        download_file([server.url], path, known)
        assert path.read_bytes() == new
        return
    elif change == 'note':
        next(path.parent.glob('.*.json')).write_text('{"url": 3')
    download_file([server.url], path)
    assert path.read_bytes() == new


def test_a_part_that_is_whole_is_not_asked_for(serve, path):
    server = serve(stop=[500_000] + [0] * 5)
    with pytest.raises(DownloadError):
        download_file([server.url], path, KNOWN)
    next(path.parent.glob('.*.part')).write_bytes(CONTENT)
    asked = len(server.asked)
    download_file([server.url], path, KNOWN)
    assert path.read_bytes() == CONTENT and len(server.asked) == asked


def test_second_address(serve, path, capsys, nobody):
    """It goes on where the first one stopped, as the hash decides; without one it begins anew."""
    broken, whole = serve(stop=[500_000] + [0] * 5), serve(etag='"other"')
    gone = f'{serve().base}/to/404/x'
    download_file([nobody, gone, broken.url, whole.url], path, KNOWN)
    assert path.read_bytes() == CONTENT and files(path) == ['net.pth']
    assert whole.ranges == ['bytes=500000-'] and 'If-Range' not in whole.asked[0][1]
    assert capsys.readouterr().err.count('; trying another address') == 1  # without a network
    path.unlink()
    broken.options['stop'] = [500_000] + [0] * 5
    download_file([broken.url, whole.url], path)
    assert whole.ranges[1:] == [None]


def test_wrong_content_is_not_kept(serve, path):
    wrong, server = serve(CONTENT[:-1] + b'x'), serve()
    with pytest.raises(DownloadError, match=r'not the file: its sha256 is \w{16}, exp') as caught:
        download_file([wrong.url], path, KNOWN)
    assert not caught.value.away and files(path) == [] and len(wrong.asked) == 1
    md5 = Fingerprint(md5=hashlib.md5(CONTENT).hexdigest().upper())
    with pytest.raises(DownloadError, match='its md5 is'):
        download_file([wrong.url], path, md5)
    download_file([wrong.url, server.url], path, md5)
    assert path.read_bytes() == CONTENT
    wrong.content = CONTENT[:-1]
    path.unlink()
    with pytest.raises(DownloadError, match='1048575 bytes, expected 1048576'):
        download_file([wrong.url], path, KNOWN)
    with pytest.raises(DownloadError, match='is not the file: it is odd'):
        download_file([wrong.url], path, check=lambda file: 'it is odd' * file.exists())
    assert files(path) == []


PAGES = [
    b'\xef\xbb\xbf \n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>',
    b'<HTML><title>Quota &amp; more</title>',
    b'<!-- signed out --><head>',
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
]


@pytest.mark.parametrize('page', PAGES)
def test_web_page_in_place_of_a_file(serve, path, page):
    server, whole = serve(page + b' ' * 2000, etag='"p"'), serve()
    server.headers = {'Content-Type': 'text/html; charset=utf-8'}
    with pytest.raises(DownloadError, match='it gives a web page') as caught:
        download_file([server.url], path)
    for title in ("'Google Drive - Virus scan warning'", "'Quota & more'"):
        assert (title.strip("'").split()[0].encode() in page) == (title in str(caught.value))
    assert files(path) == [] and not caught.value.away
    download_file([server.url, whole.url], path)
    assert path.read_bytes() == CONTENT


def test_errors_of_servers(serve, path, monkeypatch, nobody):
    server = serve()
    server.status = 404
    with pytest.raises(DownloadError, match=r'^HTTP 404 Not Found$') as caught:
        download_file([server.url], path)
    assert len(server.asked) == 1 and not caught.value.away
    server.status = 503
    with pytest.raises(DownloadError, match='HTTP 503'):
        download_file([server.url], path)
    assert len(server.asked) == 5  # it may be busy
    for url, reason in (
        (nobody, 'Connection refused'),
        ('nonsense', 'unknown url type'),
        ('http://[1', '.'),
        ('http:///x', 'no host given'),
    ):
        with pytest.raises(DownloadError, match=reason):
            download_file([url], path)
    with pytest.raises(DownloadError, match=r'(?i)wrong version number') as caught:
        download_file([server.url.replace('http', 'https')], path)
    assert not caught.value.away  # somebody answered, but not with this certificate
    server.status, server.content = 200, b''
    with pytest.raises(DownloadError, match='empty'):
        download_file([server.url], path)
    server.content, server.headers = CONTENT, {'Content-Encoding': 'br'}
    with pytest.raises(DownloadError, match=r'encodes the file \(br\)'):
        download_file([server.url], path)
    monkeypatch.setattr(connections, 'TIMEOUT', 0.1)
    server.pause, server.headers = 0.3, {}
    with pytest.raises(DownloadError, match=r'the server says nothing for 0\.1 s') as caught:
        download_file([server.url], path)
    assert caught.value.away
    server.pause, server.pauses = 0, 0.3
    with pytest.raises(DownloadError, match=r'the server says nothing for 0\.1 s') as caught:
        download_file([server.url], path)
    server.pauses = 0
    with pytest.raises(DownloadError, match=r'^http://.*: Connection refused.*; nonsense: unk'):
        download_file([nobody, 'nonsense'], path)
    assert files(path) == []


def test_strange_addresses(serve, path):
    server = serve()
    for url, asked in (
        ('/a b/ü.pth', '/a%20b/%C3%BC.pth'),
        ('/a%20b.pth?x=1&y=a/b#part', '/a%20b.pth?x=1&y=a/b'),
    ):
        download_file([server.base + url], path)
        path.unlink()
        assert server.asked[-1][0] == asked
    path.with_name('other').write_bytes(b'local')
    download_file([path.with_name('other').as_uri()], path)
    assert path.read_bytes() == b'local'


@pytest.mark.parametrize('name', ['http_proxy', 'HTTP_PROXY', 'all_proxy'])
def test_proxies(serve, path, monkeypatch, name):
    proxy, server = serve(), serve()
    monkeypatch.setenv(name, proxy.base.replace('//', '//me:secret@'))
    far = 'http://nowhere.invalid/net.pth'
    download_file([far], path, KNOWN)
    assert proxy.asked[0][0] == far and 'Proxy-Authorization' in ' '.join(
        key.title() for key in proxy.asked[0][1]
    )
    path.unlink()
    monkeypatch.setenv('no_proxy', 'x.org,127.0.0.1')
    download_file([server.url], path, KNOWN)
    assert len(server.asked) == 1 and len(proxy.asked) == 1
    proxy.status = 403
    with pytest.raises(DownloadError, match=rf'HTTP 403 .*by the proxy {proxy.base}\)'):
        download_file([far], path.with_name('other'))
    monkeypatch.setenv(name, 'socks5://127.0.0.1:1')
    if name != 'all_proxy':
        with pytest.raises(DownloadError, match='SOCKS'):
            download_file([far], path.with_name('other'))


def test_a_damaged_file_is_replaced_when_the_new_one_is_there(serve, path, capsys, nobody):
    server = serve()
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-9])
    with pytest.raises(DownloadError, match=r'refused; .*net\.pth is there, but damaged: it has'):
        download_file([nobody], path, KNOWN)
    assert path.read_bytes() == CONTENT[:-9]
    download_file([server.url], path, KNOWN)
    assert path.read_bytes() == CONTENT and files(path) == ['net.pth']
    assert 'is damaged (it has 1048567 bytes' in capsys.readouterr().err
    path.write_bytes(b'damaged')
    state = path.stat()
    download_file([server.url], path)
    assert path.read_bytes() == b'damaged'  # nothing is known of it
    download_file([server.url], path, damaged=state)
    assert path.read_bytes() == CONTENT
    download_file([server.url], path, damaged=state)
    assert len(server.asked) == 2


@pytest.fixture
def unprivileged():
    """Run as a user who may not write everywhere; the folder is one that he can see."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    else:
        folder.chmod(0o555)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_folder_that_cannot_be_written(serve, unprivileged):
    server = serve()
    for path in (unprivileged / 'net.pth', unprivileged / 'cache' / 'net.pth'):
        with pytest.raises(DownloadError) as caught:
            download_file([server.url], path, KNOWN)
        assert caught.value.local and re.fullmatch(
            rf'{path.parent} cannot be written \(Permission denied\)\. Put net\.pth there, or name '
            'another folder for downloads with the environment variable TORCH_HOME',
            str(caught.value),
        )
    assert not server.asked


def test_file_in_a_folder_that_cannot_be_written(serve, path, monkeypatch, nobody):
    download_file([serve().url], path, KNOWN)

    def no_lock(*args):
        raise OSError(errno.EROFS, 'Read-only file system')

    monkeypatch.setattr(module, 'in_turn', no_lock)
    assert download_file([nobody], path, KNOWN) == path
    path.unlink()
    with pytest.raises(DownloadError, match=r'cannot be written \(Read-only file system\)'):
        download_file([nobody], path, KNOWN)


def test_no_space(serve, path, monkeypatch):
    server = serve()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, before[1]))
    try:
        with pytest.raises(
            DownloadError, match=r'cache has no space for net\.pth \(.*has 1\.05 MB\)'
        ) as caught:
            download_file([server.url], path, KNOWN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 'TORCH_HOME' in str(caught.value) and caught.value.local and files(path) == []
    disk = SimpleNamespace(free=999)
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda folder: disk)
    needed = r'no space for net\.pth \(1\.05 MB are needed, 999 bytes are free\)'
    with pytest.raises(DownloadError, match=needed):
        download_file([server.url], path, KNOWN)
    assert files(path) == []
    disk.free = len(CONTENT)
    download_file([server.url], path, KNOWN)


def test_one_of_several_processes_downloads(serve, path, fork, monkeypatch):
    """Whichever begins, each finds the whole file; also in threads."""
    server = serve()
    server.pause = 0.3
    codes = fork([lambda: download_file([server.url], path, KNOWN) and None] * 3, seconds=20)
    assert codes == [0, 0, 0], fork.text
    assert len(server.asked) == 1 and files(path) == ['net.pth']
    path.unlink()
    work = [
        threading.Thread(target=download_file, args=([server.url], path, KNOWN)) for _ in range(3)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(server.asked) == 2 and path.read_bytes() == CONTENT


def test_who_waits_is_told_of_a_failure(serve, path, fork):
    """It does not try the same again; a process that comes later does."""
    server = serve()
    server.pause, server.status = 0.5, 404

    def fails():
        with pytest.raises(DownloadError, match='HTTP 404'):
            download_file([server.url], path, KNOWN)

    assert fork([fails] * 3, seconds=20) == [0] * 3, fork.text
    assert len(server.asked) == 1 and files(path) == []
    fails()
    assert len(server.asked) == 2


def test_first_process_of_a_machine_begins(path, monkeypatch):
    monkeypatch.setattr(turns, 'HEAD_START', 0.4)
    lock = path.with_name('lock')
    cases = ('0', None, ''), ('1', None, ''), ('1', path, ''), ('1', lock, 'held'), ('1', lock, '')
    waited = []
    for rank, there, content in cases:
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        if there:
            there.write_text(content)
        monkeypatch.setenv('LOCAL_RANK', rank)
        start = time.monotonic()
        turns.give_way(lock, path)
        waited.append(time.monotonic() - start >= 0.4)
    assert waited == [False, True, False, False, True]


def test_a_killed_process_holds_nobody_up(serve, path, fork):
    server = serve()
    server.pause = 30

    def killed():
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        download_file([server.url], path, KNOWN)

    assert fork([killed], seconds=20) == [-signal.SIGKILL]
    assert any(name.endswith('.lock') for name in files(path))
    server.pause = 0
    download_file([server.url], path, KNOWN)
    assert path.read_bytes() == CONTENT and files(path) == ['net.pth']


def test_file_systems_without_locks(serve, path, fork, monkeypatch):
    """The existence of a file decides, as long as its owner gives signs of life."""

    def flock(*args):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(turns.fcntl, 'flock', flock)
    monkeypatch.setattr(turns, 'PATIENCE', 0.7)
    monkeypatch.setattr(turns, 'BEAT', 0.05)
    server = serve()
    server.pause = 0.8
    assert fork([lambda: download_file([server.url], path, KNOWN) and None] * 2) == [0, 0], (
        fork.text
    )
    assert len(server.asked) == 1 and files(path) == ['net.pth']
    path.unlink()
    server.pause = 0
    held = path.with_name('.net.pth.lock-held')
    held.touch()  # of a process that is gone
    start = time.monotonic()
    download_file([server.url], path, KNOWN)
    assert time.monotonic() - start > 0.7
    assert path.read_bytes() == CONTENT and not held.exists()


def test_waiting_is_told(path, monkeypatch, capsys):
    monkeypatch.setattr(turns, '_QUIET', 0)
    path.parent.mkdir()
    entered = threading.Event()

    def hold():
        with turns.in_turn(path):
            entered.set()
            time.sleep(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with turns.in_turn(path) as turn:
        assert not turn.ours and turn.failure is None
    thread.join()
    err = capsys.readouterr().err
    assert err.startswith(f'waiting for process {os.getpid()} on ') and err.count('\n') == 1


def test_parts_of_other_machines_are_removed_at_the_end(serve, path):
    path.parent.mkdir()
    for name in ('.net.pth.01234567.part', '.net.pth.01234567.part.json', '.other.01234567.part'):
        (path.parent / name).write_text(json.dumps({}))
    download_file([serve().url], path, KNOWN)
    assert files(path) == ['.other.01234567.part', 'net.pth']


def test_cache_is_that_of_torch_without_torch(monkeypatch):
    for home, caches in ((None, None), ('/t', None), (None, '/c'), ('/t', '/c'), ('~/t', None)):
        for name, value in (('TORCH_HOME', home), ('XDG_CACHE_HOME', caches)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        expected = Path(torch.hub._get_torch_home(), 'hub', 'checkpoints')
        with monkeypatch.context() as without:
            without.delitem(sys.modules, 'torch.hub')
            assert module.cache_folder() == expected
