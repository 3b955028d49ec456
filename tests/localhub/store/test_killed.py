"""The real server is killed again and again under concurrent writers; what it has acknowledged is there, whole."""

import os
import random
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPException
from pathlib import Path

import pytest

from medllm.localhub import Store
from medllm.localhub.store import blobs, commits, refs, removal, repos, trees
from tests.localhub.wire import Reply, Wire, large, small

KILLS = int(os.environ.get("MEDLLM_KILLS", "10"))
WRITERS = 3
SERVER = """
import sys
from medllm.localhub import Store, serve
hub = serve(sys.argv[1], user="alice")
print(hub.url, hub.token, flush=True)
hub.run()
"""


@dataclass
class Acknowledged:
    """What the server has said is done."""

    contents: set[str] = field(default_factory=set)
    commits: dict[str, list[str]] = field(default_factory=dict)


def write_until_it_dies(wire: Wire, repo: str, seed: int, known: Acknowledged) -> None:
    """Commit generation after generation: three files that belong together, sent in three ways."""
    chance = random.Random(seed)
    try:
        while True:
            mark = chance.randbytes(8)
            whole, chunked = mark + chance.randbytes(150_000), mark + chance.randbytes(200_000)
            one = wire.send_large(repo, whole)
            known.contents.add(one)
            two = wire.send_xet(repo, chunked)
            known.contents.add(two)
            reply = wire.commit(repo, small("mark.txt", mark), large("whole.bin", one), large("chunked.bin", two))
            assert reply.status == 200, reply
            known.commits.setdefault(repo, []).append(reply.json["commitOid"])
    except (OSError, HTTPException):
        return


def start(folder: Path) -> tuple[subprocess.Popen[str], Wire]:
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True)
    url, token = server.stdout.readline().split()
    return server, Wire(url, token)


def created(wire: Wire, repo: str) -> Reply:
    reply = wire.create(repo)
    assert reply.status in (200, 409), reply
    return reply


def state_faults(store: Store, known: Acknowledged) -> list[str]:
    """Every acknowledged commit that is not there, and every state that is a mix of two generations."""
    faults = []
    with store.database.read() as connection:
        for name, acknowledged in known.commits.items():
            repo = repos.find(connection, "model", *name.split("/"))
            rows = list(commits.history(connection, repo, refs.resolve(connection, repo, "main")))
            missing = set(acknowledged) - {row["id"] for row in rows}
            faults += [f"{name}: the acknowledged commit {one} is gone" for one in missing]
            for row in rows:
                nodes = trees.files(connection, row["tree"])
                ours = [node.sha256 for path, node in nodes.items() if path != ".gitattributes"]
                marks = {next(blobs.read(store.files, blobs.find(connection, one).pieces))[:8] for one in ours}
                if len(marks) > 1 or (marks and len(nodes) != 4):
                    faults.append(f"{name}: {row['id']} is half a commit")
        known_blobs = {row["sha256"] for row in connection.execute("SELECT sha256 FROM blobs")}
    return faults + [f"the acknowledged content {one} is gone" for one in known.contents - known_blobs]


@pytest.mark.slow
def test_a_killed_server_loses_nothing_it_has_acknowledged_and_shows_nothing_half_done(tmp_path: Path):
    folder, chance = tmp_path / "hub", random.Random(KILLS)
    known = Acknowledged()
    for round_ in range(KILLS):
        server, wire = start(folder)
        threads = []
        for number in range(WRITERS):
            created(wire, f"alice/model-{number}")
            arguments = (wire, f"alice/model-{number}", round_ * WRITERS + number, known)
            threads.append(threading.Thread(target=write_until_it_dies, args=arguments))
        for thread in threads:
            thread.start()
        threads[0].join(chance.uniform(0.05, 1.0))
        server.kill()
        server.wait(60)
        server.stdout.close()
        for thread in threads:
            thread.join(120)
        store = Store(folder)
        assert (removal.verify(store), state_faults(store, known)) == ([], [])
        store.close()
    assert sum(map(len, known.commits.values())) >= KILLS // 2, "the writers never got anywhere"
    after_collection(folder, known)


def after_collection(folder: Path, known: Acknowledged) -> None:
    """Collecting removes what the killed servers left half done, and only that."""
    store = Store(folder)
    removal.collect(store, timedelta(0))
    with store.database.read() as connection:
        named = removal.named_files(connection)
    left = {
        path.relative_to(folder).as_posix()
        for part in ("blobs", "xorbs", "incoming")
        for path in (folder / part).rglob("*")
        if path.is_file()
    }
    assert left == named
    kept = Acknowledged(commits=known.commits)
    assert (removal.verify(store), state_faults(store, kept)) == ([], [])
    store.close()
