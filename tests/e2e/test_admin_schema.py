"""schemathesis tries the admin API by its own document.

No 5xx, no answer that the document does not know, nothing taken that it does not allow, nobody let in without a key.
What changes the gateway is tried too, so it is a demo of its own. The seed is fixed: what is found is found again.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from .conftest import Running, serving

CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "ignored_auth",
    "unsupported_method",
)
"""Not `positive_data_acceptance`: what fits the document may still name an account, a file or a setting that is not."""
ENDLESS: Final = "/admin/api/logs/live"
"""It ends with its client; tests/admin/test_api.py follows it."""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path) as running:
        yield running


@pytest.mark.timeout(240)
def test_the_document_says_what_is_served(gateway: Running, tmp_path: Path) -> None:
    tool = shutil.which("st", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("the dev extra is not installed: schemathesis is missing")
    command = [tool, "run", f"{gateway.url}/admin/api/openapi.json", "-H", f"Authorization: Bearer {gateway.key}"]
    command += ["--exclude-path", ENDLESS, "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"]
    command += ["--max-examples", "8", "--seed", "1", "--request-timeout", "20", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    cases = re.search(r"(\d+) generated", done.stdout)
    assert cases is not None, done.stdout[-800:]
    assert int(cases[1]) > 500
