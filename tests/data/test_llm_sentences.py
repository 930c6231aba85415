"""The optional generator of sentences, against an endpoint on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from spec_repro.base.errors import DataMissing, GatedData, InvalidInput
from spec_repro.data import load_data
from spec_repro.data.generated import PROMPT, attributes, generate
from spec_repro.data.offline.factors import labels_of
from spec_repro.data.offline.sentences import GRID

SENTENCES = ["A calm female doctor is holding a golden throne.", "An angry male chef is juggling\n a desk."]


@pytest.fixture
def endpoint(monkeypatch):
    """A server that speaks the protocol; ``replies`` are states to answer with, 200 when there are no more."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append((self.path, self.headers.get("Authorization"), asked))
            status = server.replies.pop(0) if server.replies else 200
            text = SENTENCES[asked["seed"] % 2] if status != 206 else " "
            answer = {"choices": [{"message": {"content": text}}]} if status != 204 else {}
            self.send_response(200 if status < 300 else status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.replies = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    yield server
    server.shutdown()
    server.server_close()


def test_sentences_are_written_and_read_back(endpoint, tmp_path):
    path = tmp_path / "sentences.jsonl"
    assert generate(path, n=6, model="any") == 6
    where, key, asked = endpoint.asked[3]
    assert (where, key) == ("/v1/chat/completions", "Bearer secret")
    assert (asked["model"], asked["seed"], asked["messages"][0]["content"]) == ("any", 3, PROMPT)
    assert "secret" not in path.read_text()
    dataset = load_data(f"csv:{path}")
    assert dataset["text"][1] == "An angry male chef is juggling a desk."
    assert dataset["id"][:2] == ["00000", "00001"]
    assert dataset.features["profession"].names == ["chef", "doctor"]
    assert labels_of(dataset, "gender").tolist() == [0, 1] * 3


def test_a_killed_run_goes_on(endpoint, tmp_path):
    path = tmp_path / "sentences.jsonl"
    generate(path, n=2)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])  # killed while it wrote the third line
    assert generate(path, n=4) == 2
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["00000", "00001", "00002", "00003"]
    assert generate(path, n=4) == 0


def test_a_busy_endpoint_is_asked_again(endpoint, tmp_path):
    endpoint.replies = [429, 204, 206]  # busy, no answer, an empty answer
    assert generate(tmp_path / "s.jsonl", n=1, pauses=(0, 0, 0)) == 1
    assert len(endpoint.asked) == 4


@pytest.mark.parametrize(
    ("replies", "error", "words", "asked"),
    [
        ([401], GatedData, "refuses the key in OPENAI_API_KEY", 1),
        ([404], DataMissing, "gave no sentence .*404.*; what is written is kept, run again", 1),
        ([500, 500, 500], DataMissing, "gave no sentence .*500", 3),
    ],
)
def test_refusals(endpoint, tmp_path, replies, error, words, asked):
    endpoint.replies = replies
    with pytest.raises(error, match=words) as caught:
        generate(tmp_path / "s.jsonl", n=1, pauses=(0, 0))
    assert "secret" not in str(caught.value)
    assert len(endpoint.asked) == asked


def test_without_an_address(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InvalidInput, match="set OPENAI_BASE_URL to the address of an endpoint"):
        generate(tmp_path / "s.jsonl", n=1)
    assert not (tmp_path / "s.jsonl").exists()


def test_the_prompt_has_all_lists_and_attributes_are_recognised():
    assert all(value in PROMPT for values in GRID.values() for value in values)
    found = attributes("A serious Female pilot, sitting on a frying pan.")
    assert found == {
        "emotion": "serious", "gender": "female", "profession": "pilot", "action": "sitting", "object": "frying pan"
    }  # fmt: skip
    assert attributes("Nobody.") == dict.fromkeys(GRID, "")
