"""The page brings all that it needs, runs no script but its own, and writes down what people say is better."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from tests.serve.conftest import NAME
from tests.support.served import Running, running
from tests.support.written_run import PageReader
from tutelage.serve.ratings import Ratings

REPLY = {"model": NAME, "messages": [{"role": "user", "content": "<b>Hi</b> \u2028"}], "reply": "</script>"}
VERDICT = {"verdict": "tie", "left": REPLY, "right": REPLY}


def asked(server: Running, method: str, path: str, body: Any = None) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=20)
    connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode("utf-8")
    connection.close()
    return response.status, response.headers, text


def test_the_page_needs_nothing_from_elsewhere(server: Running) -> None:
    status, headers, text = asked(server, "GET", "/")
    page = PageReader(text)

    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    addresses = [
        attributes.get(name) for _, attributes in page.elements for name in ("src", "href") if name in attributes
    ]
    assert addresses == []
    assert json.loads(page.scripts["facts"]) == {"needs_key": False, "rates": False}
    assert "innerHTML" not in text


def test_a_verdict_is_a_line_of_the_file(server: Running, tmp_path: Path) -> None:
    service, folder = server.service, tmp_path / "ratings"
    assert asked(server, "POST", "/ratings", VERDICT)[0] == 404
    service.ratings = Ratings(folder)
    try:
        assert [asked(server, "POST", "/ratings", VERDICT)[0] for _ in range(2)] == [200, 200]
        for wrong in ({"verdict": "lamp"}, VERDICT | {"more": 1}, VERDICT | {"left": {}}):
            assert asked(server, "POST", "/ratings", wrong)[0] == 400
        lines = [json.loads(line) for line in (folder / "ratings.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
        assert [{key: line[key] for key in VERDICT} for line in lines] == [VERDICT, VERDICT]
        (folder / "ratings.jsonl").unlink()
        (folder / "ratings.jsonl").mkdir()
        status, _, text = asked(server, "POST", "/ratings", VERDICT)
        assert (status, "cannot be written" in text) == (507, True)
    finally:
        service.ratings = None


def test_with_a_key_the_page_is_shown_and_asks_for_it(tiny_model_folder: Path) -> None:
    with running([f"{NAME}={tiny_model_folder}"], api_key="planted") as server:
        status, _, text = asked(server, "GET", "/")
        assert status == 200
        assert json.loads(PageReader(text).scripts["facts"])["needs_key"]
        assert "planted" not in text
        assert asked(server, "POST", "/ratings", VERDICT)[0] == 401
