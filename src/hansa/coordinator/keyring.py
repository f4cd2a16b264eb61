"""The coordinator's own certificate, renewed while it runs, and its receipt key, which stays."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import grpc

from hansa.coordinator import config
from hansa.identity import renewal
from hansa.identity.authority import Authority
from hansa.identity.credentials import Credentials
from hansa.identity.keys import load_credentials

_log = logging.getLogger(__name__)


class Keyring:
    """The credentials in use; asked at every handshake, renewed at two thirds of their life.

    Thread-safe: the TLS library asks from its own threads.
    """

    def __init__(
        self,
        folder: Path,
        settings: config.Settings,
        authority: Authority,
        clock: Callable[[], datetime],
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._authority = authority
        self._clock = clock
        self._lock = threading.Lock()
        self._current = load_credentials(folder / "keys")
        self._shown: tuple[str, ssl.SSLContext | None] = "", None

    def current(self) -> Credentials:
        """The credentials, fresh enough."""
        with self._lock:
            now, found = self._clock(), self._current
            if renewal.due(found.not_before, found.not_after, found.serial, now):
                config.renew_credentials(
                    self._folder, self._settings, self._authority, now, found.signing_key()
                )
                self._current = load_credentials(self._folder / "keys")
                _log.info("the coordinator's certificate was renewed")
            return self._current

    def server_credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        """Credentials of a gRPC door that follow renewals.

        The library asks at every handshake. What it is given replaces what other handshakes may be
        using at this very moment, which ends the process; so it is given something only when the
        certificate has changed.

        Args:
          mutual: whether callers must show a certificate of this federation.
        """
        shown = self.current()

        def configuration(of: Credentials) -> grpc.ServerCertificateConfiguration:
            return grpc.ssl_server_certificate_configuration(
                [(of.key_pem, of.chain_pem)], of.root_pem if mutual else None
            )

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            before, shown = shown, self.current()
            return None if shown.serial == before.serial else configuration(shown)

        return grpc.dynamic_ssl_server_credentials(
            configuration(shown),
            renewed,  # type: ignore[arg-type]  # None is for: as before
            require_client_authentication=mutual,
        )

    def https_context(self) -> ssl.SSLContext:
        """TLS for the people's door; each handshake shows the certificate that is in use then."""
        context = self._https(self.current())

        def follow(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            del name, context
            connection.context = self._https(self.current())

        context.sni_callback = follow  # called at every handshake, with or without a name
        return context

    def _https(self, credentials: Credentials) -> ssl.SSLContext:
        with self._lock:
            serial, context = self._shown
            if context is None or serial != credentials.serial:
                path = self._folder / "people.pem"
                config.write_private(path, credentials.chain_pem + credentials.key_pem)
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.load_cert_chain(path)
                self._shown = credentials.serial, context
            return context
