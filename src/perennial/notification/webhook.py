"""A message as JSON to an address: a chat, an incident tool, a service of one's own."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from perennial.errors import ConfigError, NotificationError
from perennial.notification.base import DEFAULT, seconds, statuses

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_WORD = re.compile(r"[\x21-\x7e]+")
_LINE = re.compile(r"[\x20-\x7e\t]*")


class Webhook:
    """Posts each message as JSON; its ``text`` is what Slack, Mattermost and Teams show.

    Address and headers are credentials: messages name the host alone, and a redirect, which would
    carry them elsewhere, is refused.

    Args:
        url: ``https://…`` or ``http://…``; what is left out is said, and not what was given.
        when: Statuses to tell of, of `perennial.notification.STATUSES`.
        headers: Sent beside the message, such as ``Authorization``.
        timeout: Seconds that all of it may take.

    Raises:
        ConfigError: The address cannot be one, or a header, a status or the time is odd.
    """

    def __init__(
        self,
        *,
        url: str | None,
        when: Sequence[str] = DEFAULT,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.when = statuses(when)
        self.timeout = seconds(timeout)
        if not url:
            raise ConfigError(
                "notify.url is empty: PERENNIAL_WEBHOOK is not set in the environment.",
                where="notify.url",
                mend="set PERENNIAL_WEBHOOK=https://host/path, or choose notify=none",
            )
        self._host = _host(url)
        self._url = url
        self._headers = _checked(headers or {})

    def send(self, message: Mapping[str, Any]) -> None:
        """Post it; any answer of 2xx is success.

        Raises:
            NotificationError: Refused, unreachable, too slow, redirected, or answered otherwise.
        """
        request = urllib.request.Request(  # noqa: S310, http or https by _host
            self._url,
            data=json.dumps(message, allow_nan=False).encode(),
            headers={
                "Content-Type": "application/json",
                "User-Agent": "perennial",
                **self._headers,
            },
            method="POST",
        )
        found = [f"no answer within {self.timeout:g} seconds"]
        # a name that is looked up, or an answer that trickles, knows no timeout of its own
        thread = threading.Thread(
            target=lambda: found.append(_post(request, self.timeout)), daemon=True
        )
        thread.start()
        thread.join(self.timeout)
        if why := found[-1]:
            raise NotificationError(f"{self._host} was not told: {why}.", where="notify")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _post(request: urllib.request.Request, timeout: float) -> str:
    """Empty where it went well, else why not."""
    try:
        urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout).close()
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answered {error.code}"
    except TimeoutError:
        return f"no answer within {timeout:g} seconds"
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return f"no answer within {timeout:g} seconds"
        return _reason(error.reason)
    except Exception as error:  # of the protocol; what it says may quote the address
        return type(error).__name__
    return ""


def _reason(error: Any) -> str:
    words = getattr(error, "strerror", None) or getattr(error, "verify_message", None)
    return str(words) if words else type(error).__name__


def _host(url: str) -> str:
    """The host alone; the rest of an address is as good as a password."""
    try:
        parts = urlsplit(url)
        known = bool(_WORD.fullmatch(url)) and parts.scheme in ("https", "http")
        host, port, named = parts.hostname, parts.port, "@" not in parts.netloc
    except (TypeError, ValueError, AttributeError):
        known = False
    if not known or not host or not named:
        raise ConfigError(
            "notify.url is not an address that can be posted to.",
            where="notify.url",
            mend="set PERENNIAL_WEBHOOK=https://host/path in the environment; a password or token "
            "belongs into notify.headers.Authorization",
        )
    return host if port is None else f"{host}:{port}"


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    given = dict(headers) if isinstance(headers, Mapping) else {None: None}
    odd = [
        name
        for name, value in given.items()
        if not (isinstance(name, str) and _TOKEN.fullmatch(name))
        or not (isinstance(value, str) and _LINE.fullmatch(value))
    ]
    if odd:
        raise ConfigError(
            "notify.headers takes names and text, in plain characters on one line.",
            where=f"notify.headers.{odd[0]}" if odd[0] else "notify.headers",
            mend="write notify.headers={Authorization: Bearer ...}",
        )
    return {str(name): str(value) for name, value in given.items()}
