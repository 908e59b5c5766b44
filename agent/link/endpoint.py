"""The broker's address, our certificate, and the meaning of each failure to connect.  Reads the named files.

Invariant: a connection uses TLS 1.2 or later, with certificates on both sides and one authority.  Every failure to
connect is one message that names the endpoint or the file, and the remedy.
"""

import contextlib
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from agent.errors import Permanent, Transient

_RECORD_BYTES: Final = 16_384  # of TLS, at most: what one read can return


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A broker, and the client that connects to it.

    `cert_file` and `key_file` are the client's PEM files, `ca_file` is the authority of the broker's certificate.
    `timeout_s` bounds each step of connecting and the wait for a SUBACK.  `receive_maximum` bounds how many messages
    the broker may send before earlier ones are acknowledged, `maximum_packet_bytes` the size of each.
    """

    host: str
    port: int
    ca_file: Path
    cert_file: Path
    key_file: Path
    client_id: str
    keepalive_s: int = 30
    timeout_s: float = 10.0
    receive_maximum: int = 64
    maximum_packet_bytes: int = 8 * 1024 * 1024

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def socket_class(alerts: list[ssl.SSLError]) -> type[ssl.SSLSocket]:
    """Return a class of SSLSocket that reads ahead, and that adds the reason of a failure to `alerts`.

    Reading ahead helps because paho asks for a byte or two at a time.  The reason must be kept because under TLS 1.3 a
    broker refuses our certificate only after the handshake, by an alert that paho turns into "connection lost".
    """

    class BrokerSocket(ssl.SSLSocket):
        _ahead = b""

        def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
            if not self._ahead:
                try:
                    self._ahead = super().recv(max(buflen, _RECORD_BYTES), flags)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as error:
                    alerts.append(error)
                    raise
            data, self._ahead = self._ahead[:buflen], self._ahead[buflen:]
            return data

        def send(self, data: Any, flags: int = 0) -> int:
            try:
                return super().send(data, flags)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except OSError:
                with contextlib.suppress(OSError):
                    self.recv()  # the peer has closed: its last word, the alert, is still there to read
                raise

        def pending(self) -> int:
            return len(self._ahead) + super().pending()

    return BrokerSocket


def tls_context(endpoint: Endpoint, now: datetime) -> ssl.SSLContext:
    """TLS 1.2 or later with our certificate, trusting `ca_file` alone.  Raises Permanent, naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the peer's certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (endpoint.ca_file, endpoint.cert_file, endpoint.key_file):
        try:
            path.read_bytes()
        except OSError as error:
            raise Permanent(f"{path}: {error.strerror}; enrol the vehicle or mend the path") from error
    try:
        context.load_verify_locations(endpoint.ca_file)
    except ssl.SSLError as error:
        raise Permanent(f"{endpoint.ca_file}: not a certificate authority in PEM form") from error
    try:
        own = x509.load_pem_x509_certificate(endpoint.cert_file.read_bytes())
    except ValueError as error:
        raise Permanent(f"{endpoint.cert_file}: not a certificate in PEM form") from error
    if own.not_valid_after_utc < now:
        raise Permanent(
            f"{endpoint.cert_file}: certificate expired on {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: enrol again"
        )
    try:
        context.load_cert_chain(endpoint.cert_file, endpoint.key_file, password="")
    except ssl.SSLError as error:
        raise Permanent(
            f"{endpoint.key_file}: not the private key of {endpoint.cert_file}, or not an unencrypted PEM key"
        ) from error
    return context


_VERIFICATION: Final = {  # X509_V_ERR_*, openssl/x509_vfy.h
    9: "is not valid yet by this machine's clock: set the clock",
    10: "has expired: renew it, or set this machine's clock",
    18: "is not signed by an authority in {ca_file}",
    19: "is not signed by an authority in {ca_file}",
    20: "is not signed by an authority in {ca_file}",
    21: "is not signed by an authority in {ca_file}",
    62: "does not name {host}: connect by a name that it carries, or issue another",
    64: "does not name {host}: connect by an address that it carries, or issue another",
}
_ALERTS: Final = {  # what OpenSSL calls the alert, without the version of TLS it begins with
    "ALERT_CERTIFICATE_EXPIRED": "has expired by the broker's clock: enrol again",
    "ALERT_CERTIFICATE_REVOKED": "is revoked",
    "ALERT_CERTIFICATE_UNKNOWN": "is not accepted",
    "ALERT_BAD_CERTIFICATE": "is not accepted",
    "ALERT_UNSUPPORTED_CERTIFICATE": "is not accepted as a client's",
    "ALERT_UNKNOWN_CA": "comes from an authority that the broker does not know",
}
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")


def connect_error(endpoint: Endpoint, error: BaseException | None) -> Transient:
    """Return the error that explains a failure to connect, with the remedy.

    The error is Transient in every case, because networks, brokers and clocks may recover by themselves.
    """
    match error:
        case ssl.SSLCertVerificationError():
            reason = _VERIFICATION.get(error.verify_code, f"cannot be verified: {error.verify_message}")
            reason = reason.format(ca_file=endpoint.ca_file, host=endpoint.host)
            message = f"certificate of broker {endpoint} {reason}"
        case ssl.SSLError(reason=str(name)):
            message = _tls_failure(endpoint, name)
        case socket.gaierror() | UnicodeError():  # no DNS knows a name that cannot be encoded
            message = f"host name {endpoint.host} cannot be resolved: check name and DNS"
        case ConnectionRefusedError():
            message = f"nothing listens on {endpoint}: is the broker running, is the port right?"
        case TimeoutError():
            message = f"{endpoint} does not answer within {endpoint.timeout_s:g} s"
        case _:
            message = f"broker {endpoint} closed the connection before it stood: {error}"
    return Transient(message)


def _tls_failure(endpoint: Endpoint, name: str) -> str:
    for alert, meaning in _ALERTS.items():
        if name.endswith(alert):
            return f"broker {endpoint} refuses {endpoint.cert_file}: it {meaning}"
    if name.endswith(_NOT_TLS):
        return f"{endpoint} does not speak TLS: check the port"
    return f"TLS with broker {endpoint} failed: {name}"
