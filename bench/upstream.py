"""Our transport to an upstream beside httpx's: CPU of a request, of a token as fast as it goes, of a paced token.

The client's side alone: one process asks, another answers with canned chunks, over loopback, with TLS or without it.
Both transports have the same face (`net.upstream.Way`), send the same 1.3 KB of headers, and every answer's length is
checked.

- **request**: a body of 2 KB, an answer of ten tokens, one after the other on one connection;
- **token, unpaced**: long answers, as fast as they go, one after the other;
- **token, paced**: many answers side by side, each of 20 tokens a second.

Rounds are interleaved, in an order shuffled by the seed; a ratio is the median of the rounds' own ratios of CPU time.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import random
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console
from rich.table import Table

from bench import report
from bench.processes import ROOT, Command, Server, free_port
from kirostream.net.proxied import Proxied
from kirostream.net.transport import Transport
from kirostream.net.upstream import ClientSettings, Way, place_of

TOKEN: Final = b"x" * 150
"""About what a frame of one token has."""
RATE: Final = 20
HEADERS: Final = (
    (b"content-type", b"application/x-amz-json-1.0"),
    (b"authorization", b"Bearer " + b"a" * 900),
    (b"x-amz-target", b"AmazonCodeWhispererStreamingService.GenerateAssistantResponse"),
    (b"user-agent", b"aws-sdk-js/1.0.27 ua/2.1 os/linux lang/js md/nodejs#22.21.1 api/codewhispererstreaming#1.0.27"),
    (b"x-amz-user-agent", b"aws-sdk-js/1.0.27"),
    (b"amz-sdk-invocation-id", b"00000000-0000-4000-8000-000000000000"),
    (b"amz-sdk-request", b"attempt=1; max=3"),
    (b"accept", b"*/*"),
)
HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 19:00:00 GMT\r\ncontent-type: application/vnd.amazon.eventstream\r\n"
    b"x-amzn-requestid: 00000000-0000-4000-8000-000000000000\r\ntransfer-encoding: chunked\r\n\r\n"
)
CHUNK: Final = b"%x\r\n%s\r\n" % (len(TOKEN), TOKEN)
LAST: Final = b"0\r\n\r\n"

OURS, THEIRS = "ours", "httpx"
WAYS: Final[dict[str, Callable[[ClientSettings], Way]]] = {OURS: Transport, THEIRS: Proxied}
GOALS: Final = {"request": 3.0, "token, unpaced": 3.0, "token, paced": 1.5}
"""How many times the CPU of ours httpx takes, at the least."""


# --- the other side -----------------------------------------------------------------------------------------------


async def serve(port: int, secret_port: int, certificate: str) -> None:
    """Answer requests. The body says how many tokens, and how many milliseconds lie between two."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def secret(stream: trio.SocketStream) -> None:
        await _answer(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, _answer, await trio.open_tcp_listeners(port, host="127.0.0.1"))
        nursery.start_soon(trio.serve_listeners, secret, await trio.open_tcp_listeners(secret_port, host="127.0.0.1"))


async def _answer(stream: trio.abc.Stream) -> None:
    data = b""
    try:
        while True:
            while b"\r\n\r\n" not in data:
                if not (more := await stream.receive_some(65536)):
                    return
                data += bytes(more)
            head, _, data = data.partition(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            length = int(fields.get(b"content-length", b"0"))
            while len(data) < length:
                data += bytes(await stream.receive_some(65536))
            body, data = data[:length], data[length:]
            count, pause = map(int, body.split()[:2] or (0, 0))
            if not pause:
                await stream.send_all(HEAD + CHUNK * count + LAST)
                continue
            await stream.send_all(HEAD)
            at = trio.current_time()
            for _ in range(count):
                at += pause / 1000
                await trio.sleep_until(at)
                await stream.send_all(CHUNK)
            await stream.send_all(LAST)
    except trio.BrokenResourceError:
        pass


def certificate(file: Path) -> None:
    """Write a certificate of 127.0.0.1 and localhost, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


# --- measuring ----------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """A transport to a server, and what it took: CPU in us by workload, a round each."""

    name: str
    url: str
    settings: ClientSettings
    cpu: dict[str, list[float]] = field(default_factory=dict)

    @property
    def secret(self) -> bool:
        return self.url.startswith("https")

    async def round(self, options: argparse.Namespace) -> None:
        """Measure every workload once.

        Raises:
            AssertionError: an answer was not right.
        """
        way = WAYS[self.name](self.settings)
        place = place_of(self.url)

        async def ask(count: int, pause: int, filling: int = 0) -> None:
            size = 0
            body = b"%d %d " % (count, pause) + b"z" * filling
            answer = await way.open("POST", place, HEADERS, body)
            while piece := await answer.read_some():
                size += len(piece)
            await answer.leave(early=False)
            assert (answer.status, size) == (200, count * len(TOKEN)), f"{self.name}: {answer!r} of {size} bytes"

        async def one_by_one(times: int, count: int, filling: int) -> None:
            for _ in range(times):
                await ask(count, 0, filling)

        async def crowd() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(options.streams):
                    nursery.start_soon(ask, round(options.seconds * RATE), 1000 // RATE)
                    await trio.sleep(1 / RATE / options.streams)

        try:
            await one_by_one(10, 10, 2000)
            await self._timed("request", options.requests, lambda: one_by_one(options.requests, 10, 2000))
            tokens = options.tokens
            await self._timed("token, unpaced", 4 * tokens, lambda: one_by_one(4, tokens, 0))
            await self._timed("token, paced", options.streams * round(options.seconds * RATE), crowd)
        finally:
            await way.aclose()

    async def _timed(self, workload: str, count: int, work: Callable[[], Awaitable[None]]) -> None:
        began = time.process_time_ns()
        await work()
        self.cpu.setdefault(workload, []).append((time.process_time_ns() - began) / 1e3 / count)


async def measure(options: argparse.Namespace, port: int, secret_port: int, authority: Path) -> list[Bench]:
    """Both transports, with TLS and without."""
    settings = ClientSettings(ca_file=str(authority))
    urls = (f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{secret_port}/")
    benches = [Bench(name, url, settings) for url in urls for name in WAYS]
    order = random.Random(options.seed)
    for _ in range(options.rounds):
        for bench in order.sample(benches, len(benches)):
            await bench.round(options)
    return benches


def summarize(benches: Sequence[Bench]) -> list[dict[str, Any]]:
    """A dictionary a transport, TLS and workload; `ratio` is httpx's CPU over this one's."""
    theirs = {bench.secret: bench.cpu for bench in benches if bench.name == THEIRS}
    return [
        {
            "transport": bench.name,
            "tls": bench.secret,
            "workload": workload,
            "cpu_us": round(statistics.median(cpu), 3),
            "ratio": round(
                statistics.median(a / b for a, b in zip(theirs[bench.secret][workload], cpu, strict=True)), 2
            ),
            "all_cpu_us": [round(each, 3) for each in cpu],
        }
        for bench in benches
        for workload, cpu in bench.cpu.items()
    ]


def judge(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "goal": f"{row['workload']}{', TLS' if row['tls'] else ''}: httpx takes {GOALS[row['workload']]:g} x that",
            "measured": row["ratio"],
            "met": row["ratio"] >= GOALS[row["workload"]],
        }
        for row in rows
        if row["transport"] == OURS
    ]


def table(rows: Sequence[dict[str, Any]]) -> Table:
    out = Table(title="us of CPU on the client's side (how many times that httpx takes)", title_justify="left")
    out.add_column("", no_wrap=True)
    for workload in GOALS:
        out.add_column(workload, justify="right", no_wrap=True)
    for secret in (False, True):
        for name in WAYS:
            cells = [
                f"{row['cpu_us']:.1f} ({row['ratio']:.1f} x)"
                for row in rows
                if (row["transport"], row["tls"]) == (name, secret)
            ]
            out.add_row(f"{name}{', TLS' if secret else ''}", *cells)
    return out


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="rounds (default %(default)s)")
    add("--requests", type=int, default=200, help="requests a round (default %(default)s)")
    add("--tokens", type=int, default=10_000, help="tokens of an unpaced answer (default %(default)s)")
    add("--streams", type=int, default=64, help="paced answers side by side (default %(default)s)")
    add("--seconds", type=float, default=2.0, help="that a paced answer takes (default %(default)g)")
    add("--seed", type=int, default=1, help="of the order (default %(default)s)")
    add("--quick", action="store_true", help="a short run that only shows that everything works")
    add("--check", action="store_true", help="exit with 1 if a goal is missed")
    add("--json", type=Path, metavar="PATH", help="write the figures there, and not into bench/results")
    add("--no-save", action="store_true", help="do not write a file")


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.quick:
        vars(options).update(rounds=1, requests=5, tokens=200, streams=4, seconds=0.2)
    where = report.machine()
    with tempfile.TemporaryDirectory(prefix="kirostream-bench-") as folder:
        file = Path(folder) / "certificate.pem"
        certificate(file)
        secret_port = free_port()
        arguments = ["-m", "bench.upstream", "{port}", str(secret_port), str(file)]
        with Server(Command("upstream", arguments, {"PYTHONPATH": str(ROOT)}), Path(folder)) as server:
            rows = summarize(trio.run(measure, options, server.port, secret_port, file))
    console.print(table(rows))
    goals = judge(rows)
    for goal in goals:
        console.print(f"{'met' if goal['met'] else 'MISSED'}: {goal['goal']}, measured {goal['measured']:.1f}")
    if not options.no_save:
        result = {
            "machine": where,
            "versions": report.versions(["kirostream", "trio", "httpx", "httpcore", "h11"]),
            "seed": options.seed,
            "settings": {
                name: getattr(options, name) for name in ("rounds", "requests", "tokens", "streams", "seconds")
            },
            "results": rows,
            "goals": goals,
        }
        path = report.save("upstream", result, options.json)
        console.print(f"written: {path}", style="dim", soft_wrap=True)
    return 1 if options.check and not all(goal["met"] for goal in goals) else 0


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
