"""Describe the broker to connect to, set up TLS, and explain each failure to connect.

Invariants: a connection uses TLS 1.2 or later.  Both sides show a certificate, and only one certificate authority is
trusted.  Every failure to connect results in one message that names the endpoint or the file, and the remedy.
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
from agent.link.packets import Inspector, PacketRefusedError

_RECORD_BYTES: Final = 16_384  # the largest TLS record, and so the most that one read can return


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Describes a broker and the client that connects to it.

    `cert_file` and `key_file` are the client's PEM files.  `ca_file` has the certificate of the authority that
    issued the broker's certificate.  `timeout_s` bounds each step of connecting and the wait for a SUBACK.
    `receive_maximum` is the number of messages that the broker may send before earlier ones are acknowledged.

    `maximum_packet_bytes` is the size of the largest packet that the broker may send; a broker that exceeds it is
    disconnected.  The default is twice what the brokers of a fleet pass on (config/mosquitto).  `unread_bytes` bounds
    the messages that wait for the reader.  The default leaves room for what mosquitto 2.0.11 sends at once to a
    receiver that comes back: 1,000 batches.  `renew` says in messages how the client gets another certificate.
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
    maximum_packet_bytes: int = 256 * 1024
    unread_bytes: int = 32 * 1024 * 1024
    renew: str = "bring a new certificate to the vehicle (fleet keys reissue), or enrol again"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def socket_class(faults: list[OSError], inspector: Inspector) -> type[ssl.SSLSocket]:
    """Return a subclass of SSLSocket, for one connection, that reads ahead and lets `inspector` see each byte first.

    Reading ahead saves many calls of OpenSSL, because paho asks for one or two bytes at a time.

    Each TLS error and each packet that the inspector refuses is appended to `faults`, because paho reports both as
    "connection lost".  Under TLS 1.3, a broker refuses our certificate by an alert after the handshake.
    """

    class BrokerSocket(ssl.SSLSocket):
        _ahead = b""

        def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
            if not self._ahead:
                try:
                    ahead = super().recv(max(buflen, _RECORD_BYTES), flags)
                    inspector.take(ahead)
                    self._ahead = ahead
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except (ssl.SSLError, PacketRefusedError) as error:
                    faults.append(error)
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
                    self.recv()  # The peer has closed the connection, but its alert can still be read.
                raise

        def pending(self) -> int:
            return len(self._ahead) + super().pending()

    return BrokerSocket


def tls_context(endpoint: Endpoint, now: datetime) -> ssl.SSLContext:
    """Return a TLS context that shows our certificate, requires TLS 1.2 or later, and trusts `ca_file` only.

    Raises: Permanent, naming the file, if a file is missing or wrong, or if our certificate expired before `now`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the peer's certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (endpoint.ca_file, endpoint.cert_file, endpoint.key_file):
        try:
            path.read_bytes()
        except OSError as error:
            raise Permanent(f"{path}: {error.strerror}; correct the path, or {endpoint.renew}") from error
    try:
        context.load_verify_locations(endpoint.ca_file)
    except ssl.SSLError as error:
        raise Permanent(
            f"{endpoint.ca_file}: the file is not a certificate authority in PEM form; copy it again, or "
            f"{endpoint.renew}"
        ) from error
    try:
        own = x509.load_pem_x509_certificate(endpoint.cert_file.read_bytes())
    except ValueError as error:
        raise Permanent(
            f"{endpoint.cert_file}: the file is not a certificate in PEM form; copy it again, or {endpoint.renew}"
        ) from error
    if own.not_valid_after_utc < now:
        raise Permanent(
            f"{endpoint.cert_file}: the certificate expired on {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; "
            f"{endpoint.renew}"
        )
    try:
        context.load_cert_chain(endpoint.cert_file, endpoint.key_file, password="")
    except ssl.SSLError as error:
        raise Permanent(
            f"{endpoint.key_file}: the file is not the private key of {endpoint.cert_file}, or is not an unencrypted "
            f"PEM key; copy both files again, or {endpoint.renew}"
        ) from error
    return context


_VERIFICATION: Final = {  # X509_V_ERR_*, openssl/x509_vfy.h
    9: "is not valid yet by this machine's clock; set the clock",
    10: "has expired; renew it, or set this machine's clock",
    18: "is not signed by an authority in {ca_file}; check the broker's address and that file",
    19: "is not signed by an authority in {ca_file}; check the broker's address and that file",
    20: "is not signed by an authority in {ca_file}; check the broker's address and that file",
    21: "is not signed by an authority in {ca_file}; check the broker's address and that file",
    62: "does not name {host}; connect by a host name in the certificate, or issue another certificate",
    64: "does not name {host}; connect by an address in the certificate, or issue another certificate",
}
_ALERTS: Final = {  # OpenSSL's name of the alert, without the TLS version that the name begins with
    "ALERT_CERTIFICATE_EXPIRED": "has expired by the broker's clock; {renew}",
    "ALERT_CERTIFICATE_REVOKED": "is revoked; enrol the vehicle again",
    "ALERT_CERTIFICATE_UNKNOWN": "is not accepted; see the broker's log, or {renew}",
    "ALERT_BAD_CERTIFICATE": "is not accepted; see the broker's log, or {renew}",
    "ALERT_UNSUPPORTED_CERTIFICATE": "is not accepted as a client certificate; {renew}",
    "ALERT_UNKNOWN_CA": "comes from an authority that this port of the broker does not know; check address and port "
    "(config/mosquitto/ has 8883 for vehicles and 8884 for the fleet's programs), or {renew}",
}
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")


def connect_error(endpoint: Endpoint, error: BaseException | None) -> Transient:
    """Return the error that explains a failure to connect, with the remedy.

    The error is Transient in every case, because networks, brokers and clocks may recover by themselves.
    """
    match error:
        case ssl.SSLCertVerificationError():
            reason = _VERIFICATION.get(error.verify_code, f"cannot be verified ({error.verify_message}); renew it")
            reason = reason.format(ca_file=endpoint.ca_file, host=endpoint.host)
            message = f"the certificate of broker {endpoint} {reason}"
        case ssl.SSLError(reason=str(name)):
            message = _tls_failure(endpoint, name)
        case socket.gaierror() | UnicodeError():  # UnicodeError: a name that cannot be encoded is in no DNS.
            message = f"the host name {endpoint.host} cannot be resolved; check the name and the DNS server"
        case PacketRefusedError():
            message = f"the connection to {endpoint} was cut: {error}; check that it is the fleet's broker"
        case ConnectionRefusedError():
            message = f"nothing listens on {endpoint}; check that the broker is running and that the port is right"
        case TimeoutError():
            message = f"{endpoint} does not answer within {endpoint.timeout_s:g} s; check the network and the address"
        case _:
            message = f"the connection to broker {endpoint} could not be made ({error}); check the network and the port"
    return Transient(message)


def _tls_failure(endpoint: Endpoint, name: str) -> str:
    for alert, meaning in _ALERTS.items():
        if name.endswith(alert):
            return f"broker {endpoint} refuses {endpoint.cert_file}: it {meaning.format(renew=endpoint.renew)}"
    if name.endswith(_NOT_TLS):
        return f"{endpoint} does not speak TLS; check the port"
    return f"the TLS handshake with broker {endpoint} failed ({name}); check the port and see the broker's log"
