"""Where a Kafka cluster is and how to be let in: what ``kafka://`` URLs mean, to source and sink.

``kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]/NAME[?name=value&...]``. Security settings are
parameters of the URL or ``MARKETFLOW_KAFKA_<NAME>`` variables, the URL wins:

``security`` plaintext, ssl, sasl_plaintext or sasl_ssl · ``mechanism`` PLAIN, SCRAM-SHA-256,
SCRAM-SHA-512 · ``username`` · ``password`` · ``password_file`` · ``ca``, ``certificate``, ``key``
(PEM files) · ``key_password``.

A name and password are never sent in the clear unasked: ``security`` must then be said.
Nothing of this is read here: the caller passes the environment and a reader of files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

_PROTOCOLS: Final = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_FILES: Final = {
    "ca": "ssl.ca.location",
    "certificate": "ssl.certificate.location",
    "key": "ssl.key.location",
}
#: Parameters of a URL that are about security; each also an environment variable.
SECURITY_PARAMS: Final = (
    "security", "mechanism", "username", "password", "password_file", *_FILES, "key_password",
)  # fmt: skip
_ENV: Final = "MARKETFLOW_KAFKA_"
_FORM: Final = "kafka://HOST:PORT[,HOST:PORT]/NAME"
_BROKER: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):(\d{1,5})")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_SECRET: Final = re.compile(r"(?i)((?:^|[?&])[^=&]*(?:password|secret)[^=&]*=)[^&]*")
_USERINFO: Final = re.compile(r"//[^/]*@")


class KafkaAddressError(ValueError):
    """A Kafka URL or its settings cannot be used as given; the text names the fix."""


@dataclass(frozen=True, slots=True)
class Security:
    """How to be let in. ``password`` is the one of the user, ``key_password`` that of the key."""

    protocol: str = "plaintext"
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    certificate: str = ""
    key: str = ""
    key_password: str = field(default="", repr=False)

    def config(self) -> dict[str, str]:
        """The client library's settings."""
        config = {"security.protocol": self.protocol}
        if self.protocol.startswith("sasl"):
            config |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password,
            }
        for name, setting in _FILES.items():
            if value := getattr(self, name):
                config[setting] = value
        if self.key_password:
            config["ssl.key.password"] = self.key_password
        return config


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """A cluster and a name in it: a topic for a source, a prefix of topics for a sink."""

    brokers: str
    name: str
    security: Security = Security()

    def config(self) -> dict[str, str]:
        """The client library's settings to reach the cluster. What is sent is not held back for
        more: the library gathers messages by itself."""
        return {
            "bootstrap.servers": self.brokers,
            "socket.nagle.disable": "true",
            **self.security.config(),
        }


def redacted(text: str) -> str:
    """A URL without its secrets, for people and for files."""
    return _SECRET.sub(r"\1***", _USERINFO.sub("//***@", text, count=1))


def parse_address(
    place: str,
    params: Mapping[str, str],
    environment: Mapping[str, str],
    read_file: Callable[[str], str],
) -> KafkaAddress:
    """The address of ``place`` (``//host:port/name``) with the security that applies to it.

    ``params`` are the URL's (only SECURITY_PARAMS are looked at). Raises KafkaAddressError.
    """
    shown = redacted(place)
    if not place.startswith("//"):
        raise KafkaAddressError(f"kafka:{shown}: write {_FORM}")
    authority, slash, name = place[2:].partition("/")
    userinfo, _, brokers = authority.rpartition("@")
    for broker in brokers.split(","):
        match = _BROKER.fullmatch(broker)
        if match is None or not 0 < int(match[1]) < 65536:
            raise KafkaAddressError(
                f"kafka:{shown}: {broker!r} is no HOST:PORT of a broker; write {_FORM}"
            )
    if not slash or not _NAME.fullmatch(name):
        raise KafkaAddressError(
            f"kafka:{shown}: names no topic; write {_FORM} (letters, digits, '.', '_' and '-')"
        )
    given = {
        n: environment[_ENV + n.upper()]
        for n in SECURITY_PARAMS
        if environment.get(_ENV + n.upper())
    }
    if userinfo:
        username, _, password = userinfo.partition(":")
        given |= {"username": unquote(username), "password": unquote(password)}
    given |= {n: params[n] for n in SECURITY_PARAMS if n in params}
    return KafkaAddress(brokers, name, _security(given, read_file))


def _security(given: dict[str, str], read_file: Callable[[str], str]) -> Security:
    if "password" not in given and "password_file" in given:
        given["password"] = read_file(given["password_file"]).rstrip("\r\n")
    protocol = given.get("security", "")
    if not protocol and "username" in given:
        raise KafkaAddressError(
            "kafka: a username is given but not how to send it: add security=sasl_ssl (encrypted) "
            "or security=sasl_plaintext (the password travels in the clear)"
        )
    if not protocol:
        protocol = "ssl" if any(name in given for name in _FILES) else "plaintext"
    if protocol not in _PROTOCOLS:
        raise KafkaAddressError(f"kafka: security={protocol} is none of {', '.join(_PROTOCOLS)}")
    mechanism = given.get("mechanism", "PLAIN").upper()
    if mechanism not in _MECHANISMS:
        raise KafkaAddressError(f"kafka: mechanism={mechanism} is none of {', '.join(_MECHANISMS)}")
    if protocol.startswith("sasl") and not (given.get("username") and given.get("password")):
        raise KafkaAddressError(
            f"kafka: security={protocol} needs a username and a password: set "
            f"{_ENV}USERNAME and {_ENV}PASSWORD (or {_ENV}PASSWORD_FILE)"
        )
    sasl = protocol.startswith("sasl")
    return Security(
        protocol=protocol,
        mechanism=mechanism if sasl else "",
        username=given.get("username", "") if sasl else "",
        password=given.get("password", "") if sasl else "",
        ca=given.get("ca", ""),
        certificate=given.get("certificate", ""),
        key=given.get("key", ""),
        key_password=given.get("key_password", ""),
    )
