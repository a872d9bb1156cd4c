"""Which addresses graphs may reach: public ones, and those that somebody has allowed.

A name is resolved here, every address it stands for is checked, and the connection goes to exactly the address that was
checked: a second look-up that answers something else has no effect. Each hop of a redirect is a connection, and passes
here as well. `allow_hosts` opens the way to named hosts of one's own network.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import configured
from .exceptions import NodeError

if TYPE_CHECKING:
    import httpx2

#: Comma-separated names that are allowed besides those of `allow_hosts`; also read where there is no project.
VARIABLE = "PYFLUE_FLOWGRAM_ALLOWED_HOSTS"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_allowed: set[str] = set()


class AddressRefused(NodeError):
    """An address that graphs may not reach."""


def allow_hosts(*hosts: str) -> None:
    """Let graphs of this process reach hosts that are not public.

    A host is a name or address (`localhost`, `10.0.0.7`), maybe with a port (`localhost:8080`), or a network
    (`10.0.0.0/8`). `*` allows everything.
    """
    _allowed.update(host.strip().lower() for host in hosts if host.strip())


def forget_hosts() -> None:
    """Take back what `allow_hosts` allowed."""
    _allowed.clear()


async def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host, all of which may be reached.

    Raises:
        AddressRefused; OSError: the name cannot be resolved.
    """
    name = host.strip("[]").lower().rstrip(".")
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    of_variable = {entry.strip() for entry in os.environ.get(VARIABLE, "").lower().split(",")} - {""}
    allowed = _allowed | configured.allowed_hosts | of_variable
    if {"*", name, f"{name}:{port}"} & allowed:
        return addresses
    for address in addresses:
        if not is_public(address) and not _is_in(address, allowed):
            raise AddressRefused(
                f"The address of {host!r} is {address}, which is not public. To let graphs reach it, allow the host: "
                f"flowgram.allowed_hosts in pyflue.toml, {VARIABLE}={name}, or fg.allow_hosts({name!r})."
            )
    return addresses


def is_public(address: str) -> bool:
    """Whether an address belongs to the internet at large, however it is written."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if inner is None and parsed.teredo is not None:
            inner = parsed.teredo[1]
        if inner is None and parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is None and int(parsed) >> 32 == 0:
            inner = ipaddress.IPv4Address(int(parsed))
        if inner is not None:
            parsed = inner
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def _is_in(address: str, allowed: Iterable[str]) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    for entry in allowed:
        try:
            if parsed in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue  # a name, or one with a port
    return False


async def guarded_client(*, follow_redirects: bool) -> httpx2.AsyncClient:
    """An HTTP client that reaches public and allowed addresses only; to be closed by its user.

    No proxy, no cookies of others, no connection that outlives it.
    """
    if not _tls.cache_info().currsize:
        await asyncio.to_thread(_prepare)
    import httpx2

    limits = httpx2.Limits(max_connections=10, max_keepalive_connections=0)
    transport = httpx2.AsyncHTTPTransport(verify=_tls(), trust_env=False, limits=limits)
    # The library has no public place for it; `tests/flowgram/test_http.py` sees that it is asked.
    transport._pool._network_backend = _backend()  # pyright: ignore[reportPrivateUsage]
    return httpx2.AsyncClient(
        transport=transport, trust_env=False, follow_redirects=follow_redirects, max_redirects=5, timeout=None
    )


def _prepare() -> None:
    """Import and read what takes a while, in a thread: other runs go on."""
    _backend()
    _tls()


@functools.cache
def _tls() -> ssl.SSLContext:
    import httpx2

    return httpx2.create_ssl_context(trust_env=False)


@functools.cache
def _backend() -> Any:
    import httpcore2

    class GuardedBackend(httpcore2.AsyncNetworkBackend):
        """Connects to addresses that were checked."""

        def __init__(self) -> None:
            self._inner: Any = httpcore2.AnyIOBackend()

        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Any = None,
        ) -> Any:
            try:
                addresses = await addresses_of(host, port)
            except OSError as error:
                raise httpcore2.ConnectError(f"{host!r} cannot be resolved: {error.strerror or error}") from error
            failure: Exception | None = None
            for address in addresses:
                try:
                    return await self._inner.connect_tcp(
                        address,
                        port,
                        timeout=timeout,
                        local_address=local_address,
                        socket_options=socket_options,
                    )
                except httpcore2.ConnectError as error:
                    failure = error
            raise failure or httpcore2.ConnectError(f"{host!r} has no address")

        async def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
            raise AddressRefused("Sockets of this machine cannot be reached.")

        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

    return GuardedBackend()
