"""The built wheel as a user has it: it imports from where it is installed, its core is compiled, it starts and answers.

Run by `make smoke` with the interpreter of a new environment. Only the standard library is used on this side.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import kirostream
from kirostream import scan
from kirostream.evstream import CORE


def main() -> None:
    home = Path(kirostream.__file__).resolve()
    assert "site-packages" in home.parts, f"not the installed package: {home}"
    assert CORE == "compiled", f"the wheel has no compiled core: {CORE}"
    assert scan.BUILT, "the wheel has no compiled scanner"
    with tempfile.TemporaryDirectory() as tmp:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": tmp,
            "KIROSTREAM_DATA_DIR": f"{tmp}/data",
            "KIROSTREAM_CONFIG_DIR": f"{tmp}/config",
            "PROXY_API_KEY": "smoke",
        }
        command = [str(Path(sys.executable).with_name("kirostream")), "serve", "--demo", "--port", "0"]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            port = 0
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    port = int(found[1])
                    break
            assert port, "it did not start"
            for path in ("/v1/messages", "/v1/chat/completions"):
                body = {
                    "model": "claude-sonnet-4.5",
                    "max_tokens": 10,
                    "messages": [{"role": "user", "content": "[[say:hello 😀]]"}],
                }
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                connection.request("POST", path, json.dumps(body), {"authorization": "Bearer smoke"})
                response = connection.getresponse()
                answer = response.read().decode()
                assert response.status == 200, answer
                assert "hello 😀" in answer, answer
                connection.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
    assert process.returncode == 0, process.returncode
    print(f"smoke: kirostream {kirostream.__version__} from {home.parent.name}/ starts, answers and stops")


main()
