"""Answers of a venue's REST interface: one GET, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import suppress
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

_TIMEOUT_S: Final = 10.0
_MOST_BYTES: Final = 64 << 20
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Answer(NamedTuple):
    """``ts_recv``: ns UTC when the body was complete."""

    url: str
    body: bytes
    ts_recv: int


class RestFailed(Exception):  # noqa: N818 - reads as what happened
    """No answer that can be used; ``wait_s`` is what the venue asks to wait."""

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s


def is_loopback(url: str) -> bool:
    """Is it this machine? Then no proxy of the environment is meant."""
    return urlsplit(url).hostname in _LOOPBACK


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the host that was named, and no other."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> Any:
        if urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            raise urllib.error.HTTPError(
                req.full_url, code, f"(it leads to {urlsplit(newurl).hostname})", headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


async def ask(base: str, path: str) -> Answer:
    """:func:`fetch` in a thread that nobody waits for at the end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Answer] = loop.create_future()

    def tell(answer: Answer | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            assert answer is not None
            done.set_result(answer)

    def work() -> None:
        answer, error = None, None
        try:
            answer = fetch(base, path)
        except BaseException as raised:  # it is raised again where it is waited for
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody wants it any more
            loop.call_soon_threadsafe(tell, answer, error)

    threading.Thread(target=work, name="rest", daemon=True).start()
    return await done


def fetch(base: str, path: str) -> Answer:
    """GET ``base`` + ``path``. RestFailed says why there is no whole answer."""
    parts = urlsplit(base)
    user, _, place = parts.netloc.rpartition("@")
    url = parts._replace(netloc=place).geturl().rstrip("/") + path
    handlers: list[urllib.request.BaseHandler] = [_SameHost()]
    if is_loopback(url):
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    headers = {"User-Agent": "marketflow"}
    if user:
        headers["Authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    request = urllib.request.Request(url, headers=headers)
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as response:
            body = response.read(_MOST_BYTES + 1)
            missing = response.length
    except urllib.error.HTTPError as error:
        after = error.headers.get("Retry-After", "")
        wait_s = float(after) if after.isdecimal() else 0.0
        raise RestFailed(f"{url} answers {error.code} {error.reason}", wait_s) from None
    except Exception as error:  # what HTTP, TLS and sockets raise has no common root
        why = getattr(error, "reason", None) or error
        raise RestFailed(f"{url}: {type(error).__name__} {why}") from None
    if len(body) > _MOST_BYTES:
        raise RestFailed(f"{url}: more than {_MOST_BYTES} bytes")
    if missing:  # a read of so many bytes does not complain of its own
        raise RestFailed(f"{url}: the answer broke off {missing} bytes before its end")
    return Answer(url, body, time.time_ns())
