"""A hub on the loopback address: as much of the Hugging Face hub's protocol as its clients ask of repositories.

``with Hub() as hub`` serves the repositories that ``hub.add`` was given: information, trees, files with ranges, entity
tags and commits, the answers of gated and of absent ones. ``hub.asked`` has every request; ``hub.breaks[path]`` ends
the next transfer of a file after so many bytes. `told` is the environment of a process that shall find it.
"""

import hashlib
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ADDRESS = re.compile(
    r"/(?:(api)/)?(?:(datasets|models)/)?([\w.-]+/[\w.-]+)"
    r"(?:/(revision|tree|paths-info|resolve|auth-check)(?:/([^/]+)(?:/(.*))?)?)?"
)
TOKEN = "hf_of_the_tests"  # the token that has accepted every licence


@dataclass
class Repository:
    commit: str
    files: dict[str, bytes]
    gated: bool = False


@dataclass
class Asked:
    """One request: its method, path and range, whether with a token, and the bytes of its answer."""

    method: str
    path: str
    range: str | None
    bytes: int = 0


@dataclass
class Hub:
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    breaks: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, commit: str, files: dict[str, bytes] | Path, kind="datasets", gated=False) -> None:
        """Serve ``files`` ({path: content}, or those of a folder) as a repository whose only commit this is."""
        if isinstance(files, Path):
            files = {
                path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()
            }
        self.repositories[kind, name] = Repository(commit, files, gated)

    def __enter__(self) -> "Hub":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (_Answer,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self._server.shutdown()
        self._server.server_close()

    def told(self, home: Path) -> dict[str, str]:
        """The variables of a process that asks this hub and keeps what it gets below ``home``."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def files_sent(self) -> int:
        """Bytes of files in all answers."""
        return sum(each.bytes for each in self.asked if "/resolve/" in each.path)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self):
        self.asked = Asked(self.command, self.path, self.headers.get("Range"))
        self.hub.asked.append(self.asked)
        length = int(self.headers.get("Content-Length", 0))
        body, address = self.rfile.read(length).decode(), urllib.parse.urlsplit(self.path)
        found = ADDRESS.fullmatch(urllib.parse.unquote(address.path))
        repository = found and self.hub.repositories.get((found[2] or "models", found[3]))
        if not repository:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        revision = found[5] and urllib.parse.unquote(found[5])
        if revision not in (None, "main", repository.commit):
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository.gated and token != TOKEN and found[4] in ("resolve", "auth-check"):
            return self.refuse(403 if token else 401, "GatedRepo", f"Access to {found[3]} is restricted.")
        if found[4] == "resolve":
            return self.file(repository, found[6])
        return self.json(self.told(repository, found, body, urllib.parse.parse_qs(address.query)), repository)

    do_HEAD = do_POST = do_GET

    def told(self, repository, found, body, query):
        """What the interface answers: a tree, some paths, or the information on the repository."""
        every = {path: _entry(path, data) for path, data in repository.files.items()}
        if found[4] == "paths-info":
            asked = json.loads(body)["paths"] if body.startswith("{") else urllib.parse.parse_qs(body)["paths"]
            return [every[path] for path in asked if path in every]
        if found[4] == "tree":
            below = f"{found[6]}/" if found[6] else ""
            inside = {path.removeprefix(below): each for path, each in every.items() if path.startswith(below)}
            if query.get("recursive", [""])[0].lower() in ("true", "1"):
                return list(inside.values())
            folders = {path.partition("/")[0] for path in inside if "/" in path}
            kept = [{"type": "directory", "path": below + path, "size": 0, "oid": "0" * 40} for path in folders]
            return kept + [each for path, each in inside.items() if "/" not in path]
        names = [{"rfilename": path} for path in every]
        told = {"id": found[3], "sha": repository.commit, "siblings": names, "private": False, "disabled": False}
        return told | {"gated": "auto" if repository.gated else False, "tags": [], "downloads": 0, "likes": 0}

    def file(self, repository, path):
        if path not in repository.files:
            return self.refuse(404, "EntryNotFound", "Entry not found", repository.commit)
        data, first = repository.files[path], 0
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(span[1]), int(span[2] or len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}")
            data = data[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{_oid(repository.files[path])}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send(data, self.hub.breaks.pop(path, None) if self.command == "GET" else None)

    def json(self, content, repository):
        self.send_response(200)
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Content-Type", "application/json")
        self.send(json.dumps(content).encode())

    def refuse(self, status, code, message, commit=None):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send(json.dumps({"error": message}).encode())

    def send(self, data: bytes, until: int | None = None):
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(data[:until])
        self.asked.bytes = len(data[:until])
        if until is not None and until < len(data):
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def log_message(self, *words):
        pass


def _oid(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _entry(path: str, data: bytes) -> dict:
    lfs = {"oid": _oid(data), "size": len(data), "pointerSize": 130}
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest(), "lfs": lfs}
