"""A collector that takes connections and never answers: turns do not wait for it, and neither does a stop for long."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from e2e.conftest import KEY, clean_env

pytest.importorskip("opentelemetry.sdk")


def test_a_collector_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole, (tmp_path / "log").open("w") as log:
        place = f"http://127.0.0.1:{hole.getsockname()[1]}"
        with subprocess.Popen(
            [sys.executable, "-m", "kirostream", "serve", "--demo", "--port", "0"],
            env=clean_env(tmp_path, PROXY_API_KEY=KEY, OTEL_EXPORTER_OTLP_ENDPOINT=place, OTEL_BSP_SCHEDULE_DELAY="50"),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                url = next(
                    found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line))
                )
                body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "[[say:one]]"}]}
                for _ in range(3):
                    answer = httpx.post(f"{url}/v1/messages", json=body, headers={"x-api-key": KEY}, timeout=20)
                    assert answer.status_code == 200
                hole.settimeout(20)
                caller, _ = hole.accept()  # it was called
                with caller:
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(9) == 0  # the exporter alone would wait for ten seconds
            finally:
                process.kill()
