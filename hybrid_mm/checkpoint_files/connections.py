"""Connections to servers of files: proxies, redirects, encodings, and what goes wrong with them."""

import html
import re
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
    getproxies,
    proxy_bypass,
)

TIMEOUT = 30.0  # seconds in which a server has to say something
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers after which a new try can help
_BLOCK = 1 << 18


@dataclass
class FailedError(Exception):
    """An address did not give a file.

    Attributes:
        reason: Why, as a phrase.
        away: Whether no server could be reached.
        again: Whether a new try can help.
        status: Of the answer, if it is an error.
    """

    reason: str
    away: bool = False
    again: bool = False
    status: int | None = None


class DiskError(OSError):
    """An error of the file that is written, not of the connection."""


@contextmanager
def on_disk() -> Iterator[None]:
    """Context in which errors of the system are those of a disk."""
    try:
        yield
    except OSError as error:
        raise DiskError(error.errno, error.strerror) from error


@contextmanager
def connection(url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """Context of the answer to a request, as urllib gives it; redirects are followed.

    Raises:
        FailedError: It cannot be opened, or breaks off in the context.
    """
    try:
        request = Request(_quoted(url), headers=dict(headers))
        with _opener(url).open(request, timeout=_timeout()) as answer:
            yield answer
    except HTTPError as error:
        error.close()
        reason = f'HTTP {error.code} {text_of(error.reason).rstrip(".")}'
        again = error.code in _BUSY
        raise FailedError(reason + _by_proxy(url), again=again, status=error.code) from error
    except URLError as error:  # no connection
        cause = error.reason
        silent = isinstance(cause, TimeoutError)
        text = f'no answer within {_timeout():g} s' if silent else text_of(cause)
        away = isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError)
        raise FailedError(text + _by_proxy(url), away) from error
    except DiskError:
        raise
    except TimeoutError as error:
        reason = f'the server says nothing for {_timeout():g} s' + _by_proxy(url)
        raise FailedError(reason, away=True, again=True) from error
    except (OSError, HTTPException, zlib.error) as error:
        reason = f'the connection broke off ({text_of(error)})' + _by_proxy(url)
        raise FailedError(reason, away=isinstance(error, OSError), again=True) from error
    except ValueError as error:  # no address at all
        raise FailedError(text_of(error)) from error


def decoded(answer: Any, encoding: str) -> Iterator[bytes]:
    """Blocks of a body as they come, without the compression of the transfer."""
    if encoding == 'identity':
        while block := answer.read1(_BLOCK):
            yield block
        return
    wbits = zlib.MAX_WBITS if encoding == 'deflate' else zlib.MAX_WBITS | 16
    decoder = zlib.decompressobj(wbits)
    while block := answer.read1(_BLOCK):
        while block:
            if decoder.eof:  # gzip may come in several parts
                decoder = zlib.decompressobj(wbits)
            if plain := decoder.decompress(block):
                yield plain
            block = decoder.unused_data
    if plain := decoder.flush():
        yield plain
    if not decoder.eof:
        raise FailedError('the connection broke off', True, True)


def web_page(start: bytes, headers: Any) -> str | None:
    """What a body is if it is a page for people, by its beginning."""
    text = start[:65536].lstrip(b'\xef\xbb\xbf \t\r\n').decode('utf-8', 'replace')
    typed = (headers.get('Content-Type') or '').startswith('text/html')
    if not re.match(r'<!doctype html|<html|<\?xml' + ('|<' if typed else ''), text, re.I):
        return None
    title = re.search(r'<title[^>]*>(.*?)</title>', text, re.I | re.S)
    name = ' '.join(html.unescape(title[1]).split())[:80] if title else ''
    return (
        f'a web page{f" ({name!r})" if name else ""} in place of the file; look at it in a browser'
    )


class _Redirects(HTTPRedirectHandler):
    """Follow what urllib follows, and 308, which it does not before Python 3.11."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        return super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)

    http_error_308 = HTTPRedirectHandler.http_error_302


def _proxies() -> dict[str, str]:
    """Proxies by scheme; ``all_proxy`` stands for those that are not named."""
    proxies = getproxies()
    for scheme in ('http', 'https'):
        if proxies.get('all', '').startswith('http'):
            proxies.setdefault(scheme, proxies['all'])
    return proxies


def _proxy_of(url: str) -> str:
    """Proxy for an address, or ''."""
    parts = urlsplit(url)
    bypassed = proxy_bypass(parts.netloc.rpartition('@')[2])
    return '' if bypassed else _proxies().get(parts.scheme, '')


def _by_proxy(url: str) -> str:
    """Phrase that names the proxy of an address, without a password in it."""
    proxy = re.sub('//.*@', '//', _proxy_of(url))
    return f' (by the proxy {proxy})' if proxy else ''


def _opener(url: str) -> OpenerDirector:
    """One with the proxies that the environment names now."""
    proxy = _proxy_of(url)
    if proxy.startswith('socks'):
        kind = urlsplit(url).scheme
        raise FailedError(
            f'{kind}_proxy names a SOCKS proxy, which cannot be used; name an HTTP proxy'
        )
    return build_opener(ProxyHandler(_proxies()), _Redirects())


def _quoted(url: str) -> str:
    """An address in which blanks and other letters than those of ASCII are escaped."""
    return quote(url, safe="%/:=&?~#+!$,;'@()*[]")


def _timeout() -> float:
    return socket.getdefaulttimeout() or TIMEOUT


def text_of(error: object) -> str:
    """First line of an error."""
    text = getattr(error, 'strerror', None) or str(error) or type(error).__name__
    return str(text).strip().split('\n')[0]
