"""The panel's files: what they may do, that both languages have every word, and that nothing is from elsewhere."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from helpers.operating import place
from kirostream.admin.panel import POLICY, Panel

STATIC = Path(str(files("kirostream.admin").joinpath("static")))
SOURCES = sorted([*STATIC.glob("*.js"), *STATIC.glob("pages/*.js")])
NAMED = {
    "http://www.w3.org/2000/svg",
    "https://opencode.ai/config.json",
    "https://d-1234567890.awsapps.com/start",
}
"""Addresses that stand in the modules, and are never asked."""
WORDS: dict[str, dict[str, str]] = json.loads((STATIC / "messages.json").read_text())


def test_both_languages_have_every_word() -> None:
    assert list(WORDS) == ["en", "zh"]
    assert list(WORDS["en"]) == list(WORDS["zh"])
    for key, said in WORDS["en"].items():
        assert said.strip(), key
        assert WORDS["zh"][key].strip(), key
        assert sorted(re.findall(r"{\w+}", said)) == sorted(re.findall(r"{\w+}", WORDS["zh"][key])), key


def test_every_word_is_used_and_there() -> None:
    code = "\n".join(path.read_text() for path in SOURCES)
    asked = set(re.findall(r"""\b(?:t|step)\(\s*["']([\w. -]+)["']""", code))
    assert asked - set(WORDS["en"]) == set()
    made = {match.rstrip(".") + "." for match in re.findall(r"""\bt(?:Or)?\(\s*`([\w.]+)\$""", code)}
    unused = {key for key in WORDS["en"] if f'"{key}"' not in code and not any(key.startswith(each) for each in made)}
    assert unused == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(STATIC)))
def test_no_module_makes_html_of_text_or_asks_elsewhere(path: Path) -> None:
    code = path.read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser", code
    )
    assert not re.search(r"""setAttribute\(\s*["']style|style:\s*["'`]""", code), (
        "the policy lets no style attribute through"
    )
    assert set(re.findall(r"https?://[\w./-]+", code)) <= NAMED
    for named, loaded in re.findall(r"""^import[^;]*?from ["']([^"']+)|\bimport\(["'`]([^"'`]+)""", code, re.MULTILINE):
        assert (named or loaded).startswith(("./", "../"))


async def test_the_files_are_served_to_anybody_under_a_strict_policy(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        page = await at.client.get("/admin")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        found = re.findall(r'(?:src|href)="(/admin/static/[^"]+)"', page.text)
        assert {Path(name).suffix for name in found} == {".js", ".css", ".svg"}
        names = [f"/admin/static/{path.relative_to(STATIC)}" for path in [*SOURCES, STATIC / "messages.json"]]
        for name in ["/admin", "/admin/", *found, *names]:
            answer = await at.client.get(name)
            assert answer.status_code == 200, name
            assert answer.headers["content-security-policy"] == POLICY.decode()
            assert answer.headers["x-content-type-options"] == "nosniff"
            again = await at.client.get(name, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert (await at.client.post("/admin")).status_code == 405
        assert (await at.client.head("/admin")).content == b""
        for name in (
            "/admin/static/",
            "/admin/static/nothing.js",
            "/admin/static/../api.py",
            "/admin/static/%2e%2e/api.py",
        ):
            gone = await at.client.send(httpx.Request("GET", f"{at.gateway.url}/admin/static/{name}"))
            assert gone.status_code == 401, "what is no file of the panel is nobody's business"


def test_the_panel_has_what_its_page_asks_for() -> None:
    panel = Panel()
    for path in SOURCES:
        for name in re.findall(r'from "([^"]+)"', path.read_text()):
            asked = (path.parent / name).resolve().relative_to(STATIC.resolve())
            assert panel.has(f"/admin/static/{asked}"), (path, name)
