"""Who is measured: our own doors and languages, the floor, and gateways of others. How each is started.

A *peer* is a process between the clients and the upstream; a *way* is one of its doors in one language. A peer that
this machine cannot start is left out, and why is said.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench import compiled, scripts
from bench.processes import ROOT, Command, Server, free_port

KEY = "ks-bench"
LITELLM_KEY = "sk-" + "5f1c0a9be27d4863" * 4
"""Of the form that it wants."""
DIRECT, OURS, RELAY, HAPROXY, NGINX, REFERENCE, LITELLM = (
    "direct",
    "kirostream",
    "relay",
    "haproxy",
    "nginx",
    "reference",
    "litellm",
)
CHAT, TLS = "kirostream-chat", "kirostream-tls"
CONNECTIONS = 8192
"""That each gateway may have open: more than it is asked for."""


class NotHere(Exception):
    """This machine cannot start it. The message says what it would take."""


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Where the upstream is: ports of loopback, in the clear and with TLS (None: there is none), and who signed it."""

    plain: int
    secret: int | None = None
    authority: Path | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """One row of the tables.

    Attributes:
        name: as in ``--peers``.
        peer: the process it goes through; empty: the clients ask the upstream itself.
        dialect: a name of `scripts.DIALECTS`.
        door: which of the peer's ports: 0 is the first.
        side: it is measured at one size of crowd only, where nobody asks for it by name.
        start: seconds of a core that it may take to begin a stream: a crowd begins no faster.
        pace: of requests, beside others, in as much time: how many are asked.
        most: streams at once that it is asked for: more would only show how long its queue gets.
        about: what it is, for the page.
    """

    name: str
    peer: str
    dialect: str
    door: int = 0
    side: bool = False
    start: float = 0.002
    pace: float = 1.0
    most: int = 1 << 20
    about: str = ""


WAYS = (
    Way(DIRECT, "", "kiro", pace=10, about="the clients read the upstream's event stream themselves"),
    Way(RELAY, RELAY, "kiro", pace=10, about="bytes to and fro by epoll, in C, unread: the floor"),
    Way(HAPROXY, HAPROXY, "kiro", pace=10, about="HAProxy passing HTTP through, one thread, `option http-no-delay`"),
    Way(NGINX, NGINX, "kiro", pace=10, about="nginx passing HTTP through, one worker, unbuffered"),
    Way(OURS, OURS, "messages", about="`/v1/messages` by the door `http1`"),
    Way(CHAT, OURS, "chat", side=True, about="`/v1/chat/completions` by the door `http1`"),
    Way("kirostream-responses", OURS, "responses", side=True, about="`/v1/responses` by the door `http1`"),
    Way("kirostream-asgi", OURS, "messages", 1, side=True, about="`/v1/messages` by the door `asgi` (hypercorn)"),
    Way(TLS, TLS, "messages", side=True, about="`/v1/messages`, with TLS to the upstream"),
    Way("haproxy-tls", "haproxy-tls", "kiro", side=True, pace=10, about="HAProxy, with TLS to the upstream"),
    Way("nginx-tls", "nginx-tls", "kiro", side=True, pace=10, about="nginx, with TLS to the upstream"),
    Way(
        REFERENCE,
        REFERENCE,
        "messages",
        start=0.008,
        pace=0.2,
        about="the usual stack: hypercorn, httpx, struct, zlib, json",
    ),
    Way(
        LITELLM,
        LITELLM,
        "chat",
        start=0.06,
        pace=0.1,
        most=128,
        about="LiteLLM's proxy, `/v1/chat/completions` on both sides: it translates nothing",
    ),
)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A gateway that runs already: ``--peer name=url,pid[,dialect[,key]]``."""

    name: str
    port: int
    pid: int
    dialect: str = "messages"
    key: str = KEY

    @classmethod
    def parse(cls, text: str) -> Foreign:
        """From the command line. Raises ValueError for anything else."""
        name, _, rest = text.partition("=")
        url, pid, *more = rest.split(",")
        parts = urlsplit(url)
        if not name or parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost") or not parts.port:
            raise ValueError("name=http://127.0.0.1:PORT,PID")
        found = cls(name, parts.port, int(pid), *more)
        if found.dialect not in scripts.DIALECTS:
            raise ValueError(f"a dialect is one of {', '.join(scripts.DIALECTS)}")
        return found

    @property
    def way(self) -> Way:
        return Way(self.name, self.name, self.dialect, about="given by URL")


@dataclass
class Peer:
    """A gateway that runs. `ports`: of its doors. `server`: None where it is not ours to stop."""

    pid: int
    ports: Sequence[int]
    key: str = KEY
    ready: float | None = None
    server: Server | Program | None = None

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()


@dataclass
class Starter:
    """Starts peers.

    Args:
        home: a folder for their files.
        litellm: the Python that has LiteLLM; empty: this one.
    """

    home: Path
    upstreams: Upstreams
    litellm: str = ""
    _made: int = field(default=0, init=False)

    def start(self, name: str) -> Peer:
        """One of the peers that `WAYS` names.

        Raises:
            NotHere: what it needs is not installed.
            DidNotStart: it ended, or does not answer.
        """
        plain, _, secret = name.partition("-")
        makers: Mapping[str, Callable[[Path, str], Peer]] = {
            OURS: self._kirostream,
            RELAY: self._relay,
            HAPROXY: self._haproxy,
            NGINX: self._nginx,
            REFERENCE: self._reference,
            LITELLM: self._litellm,
        }
        self._made += 1
        home = self.home / f"{name}-{self._made}"
        home.mkdir()
        if secret and self.upstreams.secret is None:
            raise NotHere("the upstream speaks no TLS: OpenSSL's headers (libssl-dev) are missing")
        port = self.upstreams.secret if secret else self.upstreams.plain
        return makers[plain](home, f"{'https' if secret else 'http'}://127.0.0.1:{port}")

    def _serve(self, home: Path, command: Command, *more: int) -> Peer:
        server = Server(command, home)
        return Peer(server.pid, (server.port, *more), ready=server.ready, server=server)

    def makes(self, name: str) -> bool:
        """Whether it can start a peer of this name."""
        return any(way.peer == name for way in WAYS)

    def _kirostream(self, home: Path, upstream: str) -> Peer:
        second = free_port()
        env = {
            "REFRESH_TOKEN": scripts.REFRESH_TOKEN,
            "KIROSTREAM_KIRO_ENDPOINT": upstream,
            "KIROSTREAM_KEEPER_HOSTS_SOCIAL": f"http://127.0.0.1:{self.upstreams.plain}",
            "KIROSTREAM_UPSTREAM_CA_FILE": str(self.upstreams.authority or ""),
        }
        config = home / "config"
        config.mkdir()
        (config / "kirostream.toml").write_text(f'[[listen]]\nport = {second}\ndoor = "asgi"\n')
        arguments = ["-m", "kirostream", "serve", "--port", "{port}", "--key", KEY]
        return self._serve(home, Command(OURS, arguments, {"PYTHONPATH": str(ROOT), **env}), second)

    def _relay(self, home: Path, upstream: str) -> Peer:
        program = Program([str(compiled.program("relay")), upstream.rpartition(":")[2]])
        return Peer(program.pid, (program.port,), server=program)

    def _haproxy(self, home: Path, upstream: str) -> Peer:
        secure = f"ssl verify required ca-file {self.upstreams.authority}" if upstream.startswith("https") else ""
        config = home / "haproxy.cfg"
        port = free_port()
        config.write_text(
            f"""global
    nbthread 1
    maxconn {CONNECTIONS}
defaults
    mode http
    option http-no-delay
    http-reuse always
    timeout connect 10s
    timeout client 300s
    timeout server 300s
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    default_backend upstream
backend upstream
    server upstream {upstream.partition("://")[2]} {secure}
"""
        )
        arguments = ["-db", "-q", "-f", str(config)]
        return self._serve(home, Command(HAPROXY, arguments, {}, program=found("haproxy"), port=port))

    def _nginx(self, home: Path, upstream: str) -> Peer:
        scheme, _, address = upstream.partition("://")
        port = free_port()
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        folders = "".join(
            f"    {kind}_temp_path {home}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        trust = (
            f"proxy_ssl_name localhost; proxy_ssl_verify on; proxy_ssl_trusted_certificate {self.upstreams.authority};"
        )
        config = home / "nginx.conf"
        config.write_text(
            f"""{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {2 * CONNECTIONS};
pid {home}/nginx.pid;
error_log stderr;
events {{ worker_connections {CONNECTIONS}; }}
http {{
    access_log off;
{folders}    upstream upstream {{ server {address}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests 100000000;
        location / {{
            proxy_pass {scheme}://upstream;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 300s;
            {trust if scheme == "https" else ""}
        }}
    }}
}}
"""
        )
        arguments = ["-e", "stderr", "-p", str(home), "-c", str(config)]
        return self._serve(home, Command(NGINX, arguments, {}, program=found("nginx"), port=port))

    def _reference(self, home: Path, upstream: str) -> Peer:
        arguments = ["-m", "bench.reference", "--port", "{port}", "--upstream", upstream]
        arguments += ["--token", scripts.ACCESS_TOKEN]
        return self._serve(home, Command(REFERENCE, arguments, {"PYTHONPATH": str(ROOT)}))

    def _litellm(self, home: Path, upstream: str) -> Peer:
        model = {"model": f"openai/{scripts.MODEL}", "api_base": f"{upstream}/v1", "api_key": "bench"}
        config = home / "litellm.yaml"  # JSON is YAML
        config.write_text(json.dumps({"model_list": [{"model_name": scripts.MODEL, "litellm_params": model}]}))
        program = Path(litellm_program(self.litellm))
        command = Command(
            LITELLM,
            ["--host", "127.0.0.1", "--port", "{port}", "--config", str(config), "--telemetry", "False"],
            {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": LITELLM_KEY},
            health="/health/liveliness",
            program=str(program),
            patience=120.0,
        )
        peer = self._serve(home, command)
        peer.key = LITELLM_KEY
        return peer


def found(program: str) -> str:
    """Where a program is. Raises NotHere."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise NotHere(f"{program} is not installed")
    return path


def litellm_program(python: str) -> str:
    """LiteLLM's command, beside the Python that has it. Raises NotHere."""
    if python:
        path = Path(python).absolute().parent / "litellm"
        if not path.exists():
            raise NotHere(f"{path} does not exist: install 'litellm[proxy]' into the environment of {python}")
        return str(path)
    path_here = shutil.which("litellm")
    if path_here is None:
        raise NotHere(
            "LiteLLM is not installed; its pins and ours do not go together, so it has an environment of its own: "
            "--litellm PYTHON"
        )
    return path_here


def version_of(peer: str, litellm: str = "") -> str:
    """What a foreign peer says of its version; empty where it says nothing."""
    commands: Mapping[str, Callable[[], list[str]]] = {
        HAPROXY: lambda: [found("haproxy"), "-v"],
        NGINX: lambda: [found("nginx"), "-v"],
        LITELLM: lambda: [str(Path(litellm_program(litellm)).parent / "python"), "-c", _LITELLM_VERSION],
    }
    if peer not in commands:
        return ""
    try:
        done = subprocess.run(commands[peer](), capture_output=True, text=True, timeout=30, check=False)
    except (NotHere, OSError):
        return ""
    number = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return number[0] if number else ""


_LITELLM_VERSION = "from importlib.metadata import version; print(version('litellm'))"


class Program:
    """One of ours in C: it says its port on stdout, and is ready when it has."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            self._process.wait()
            assert self._process.stderr is not None
            raise NotHere(self._process.stderr.read().strip())
        self.pid = self._process.pid
        self.port = int(said)

    def __repr__(self) -> str:
        return f"<Program {self._process.args!r} on port {self.port}, process {self.pid}>"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


def upstream(routes: Path, port: int = 0, certificate: Path | None = None) -> Program:
    """The compiled upstream.

    Args:
        port: 0: one that is free.
        certificate: with it, it speaks TLS.

    Raises:
        NotHere: it cannot listen there.
        NotCompiled: see `compiled.program`.
    """
    arguments = [str(compiled.program("upstream", tls=certificate is not None)), str(routes), str(port)]
    return Program([*arguments, *([str(certificate)] if certificate else [])])
