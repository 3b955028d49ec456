"""How fast the embedded Hub takes and gives, beside `cp` and a bare file server, and how much memory it needs.

python benchmarks/hub.py speed          1 GB up and down: cp, a bare file server, LFS, the client with and without xet
python benchmarks/hub.py scale          10,000 files; 32 uploads at once; one file of 5 GB; the server's peak memory
"""

import hashlib
import http.client
import http.server
import json
import os
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

GB = 1_000_000_000
MIB = 1024 * 1024
SERVER = """
import sys
from medllm.localhub import serve
hub = serve(sys.argv[1], user="alice")
print(hub.url, hub.token, flush=True)
hub.run()
"""


def make_file(path: Path, size: int) -> Path:
    """A file of random bytes: nothing in it packs or repeats."""
    with path.open("wb") as file:
        for _ in range(size // GB):
            for _ in range(10):
                file.write(os.urandom(GB // 10))
        file.write(os.urandom(size % GB))
    return path


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, str, int]]:
    """A hub in a process of its own: address, token, process."""
    with subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url, token = server.stdout.readline().split()
        yield url, token, server.pid
        server.terminate()


def peak_memory(pid: int) -> float:
    """The most memory a process has had, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def timed(what: str, size: int, work: Callable[[], object]) -> None:
    """Print how long the work took."""
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    print(f"{what:<44} {seconds:7.2f} s {size / seconds / 1e6:8.0f} MB/s", flush=True)


def send(url: str, method: str, path: str, *, token: str, body: object = None, length: int = 0) -> bytes:
    """One request; the body is bytes, an open file, or what becomes JSON."""
    line = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    data = body if body is None or hasattr(body, "read") or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} | ({"Content-Length": str(length)} if length else {})
    line.request(method, path, data, headers)
    reply = line.getresponse()
    content = reply.read()
    line.close()
    assert reply.status == 200, (reply.status, content[:300])
    return content


def create(url: str, token: str, name: str) -> None:
    """A model repository of alice's."""
    send(url, "POST", "/api/repos/create", token=token, body={"name": name, "type": "model"})


def put_large(url: str, token: str, repo: str, file: Path) -> None:
    """Send a large file as git-lfs does."""
    size = file.stat().st_size
    with file.open("rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    wanted = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": sha256, "size": size}]}
    batch = send(url, "POST", f"/{repo}.git/info/lfs/objects/batch", token=token, body=wanted)
    href = urlsplit(json.loads(batch)["objects"][0]["actions"]["upload"]["href"])
    with file.open("rb") as source:
        send(url, "PUT", f"{href.path}?{href.query}", token=token, body=source, length=size)


def commit_large(url: str, token: str, repo: str, file: Path) -> None:
    """Name a large file that was sent in a commit, as a.bin."""
    with file.open("rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    lines = [
        {"key": "header", "value": {"summary": "large"}},
        {"key": "lfsFile", "value": {"path": "a.bin", "oid": sha256}},
    ]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    send(url, "POST", f"/api/models/{repo}/commit/main", token=token, body=body)


def download(url: str, path: str, token: str, target: Path) -> None:
    """Read a file to the disk as it comes."""
    line = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    line.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    reply = line.getresponse()
    with target.open("wb") as file:
        shutil.copyfileobj(reply, file, MIB)
    line.close()


def with_client(url: str, token: str, home: Path, code: str, *, xet: bool) -> None:
    """Run a line of huggingface_hub in a process of its own."""
    own = {"HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": str(int(not xet))}
    program = f"from huggingface_hub import HfApi, hf_hub_download; {code}"
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | own | quiet)


class _Bare(http.server.SimpleHTTPRequestHandler):
    """The plainest file server: GET from the standard library, and a PUT that only writes."""

    def do_PUT(self) -> None:
        left = int(self.headers["Content-Length"])
        with Path(self.translate_path(self.path)).open("wb") as file:
            while left:
                data = self.rfile.read(min(MIB, left))
                file.write(data)
                left -= len(data)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *words: object) -> None:
        """Stay silent."""


def bare_server(folder: Path) -> socketserver.ThreadingTCPServer:
    """The bare file server on a folder, running in a thread."""
    folder.mkdir()
    bare = socketserver.ThreadingTCPServer(("127.0.0.1", 0), partial(_Bare, directory=str(folder)))
    threading.Thread(target=bare.serve_forever, daemon=True).start()
    return bare


def put_bare(url: str, file: Path) -> None:
    """Send a file to the bare server."""
    with file.open("rb") as source:
        send(url, "PUT", "/a.bin", token="", body=source, length=file.stat().st_size)


def speed(scratch: Path, size: int = GB) -> None:
    """1 GB of random bytes there and back, each way that there is."""
    source, target = make_file(scratch / "source.bin", size), scratch / "down.bin"
    timed("cp", size, partial(shutil.copyfile, source, scratch / "copy.bin"))
    with bare_server(scratch / "bare") as bare:
        url = f"http://127.0.0.1:{bare.server_address[1]}"
        timed("bare file server, up", size, partial(put_bare, url, source))
        timed("bare file server, down", size, partial(download, url, "/a.bin", "", target))
        bare.shutdown()
    with served(scratch / "hub") as (url, token, pid):
        create(url, token, "speed")
        timed("hub, up (LFS, sha256 on both sides)", size, partial(put_large, url, token, "alice/speed", source))
        commit_large(url, token, "alice/speed", source)
        timed("hub, down", size, partial(download, url, "/alice/speed/resolve/main/a.bin", token, target))
        print(f"the server's peak memory: {peak_memory(pid):.0f} MB")
    for xet in (False, True):
        with served(scratch / f"hub-{xet}") as (url, token, pid):
            create(url, token, "speed")
            client, how = partial(with_client, url, token, scratch / "home", xet=xet), "xet" if xet else "LFS"
            up = f"HfApi().upload_file(path_or_fileobj={str(source)!r}, path_in_repo='a.bin', repo_id='alice/speed')"
            down = f"hf_hub_download('alice/speed', 'a.bin', local_dir={str(scratch / f'back-{xet}')!r})"
            timed(f"huggingface_hub over {how}, up", size, partial(client, up))
            timed(f"huggingface_hub over {how}, down", size, partial(client, down))
            print(f"the server's peak memory: {peak_memory(pid):.0f} MB")


def many_files(url: str, token: str, scratch: Path) -> None:
    """10,000 small files up and down."""
    folder = scratch / "many"
    for number in range(10_000):
        (folder / f"{number % 100:02d}").mkdir(exist_ok=True, parents=True)
        (folder / f"{number % 100:02d}" / f"{number}.txt").write_text(f"file {number}\n" * 20)
    size = sum(path.stat().st_size for path in folder.rglob("*.txt"))
    create(url, token, "many")
    client = partial(with_client, url, token, scratch / "home", xet=True)
    up = f"HfApi().upload_folder(folder_path={str(folder)!r}, repo_id='alice/many')"
    down = f"HfApi().snapshot_download('alice/many', local_dir={str(scratch / 'back')!r}, max_workers=8)"
    timed("10,000 files up", size, partial(client, up))
    timed("10,000 files down", size, partial(client, down))


def crowd(url: str, token: str, scratch: Path) -> None:
    """32 uploads at the same time."""
    parts = [make_file(scratch / f"part-{number}.bin", 50_000_000) for number in range(32)]
    create(url, token, "crowd")
    with ThreadPoolExecutor(32) as pool:
        timed(
            "32 uploads of 50 MB at once",
            32 * 50_000_000,
            lambda: [*pool.map(partial(put_large, url, token, "alice/crowd"), parts)],
        )
    for part in parts:
        part.unlink()


def very_large(url: str, token: str, scratch: Path) -> None:
    """One file of 5 GB, over LFS and over xet, and down."""
    large = make_file(scratch / "large.bin", 5 * GB)
    create(url, token, "large")
    for how, xet in (("LFS", False), ("xet", True)):
        up = f"HfApi().upload_file(path_or_fileobj={str(large)!r}, path_in_repo='{how}.bin', repo_id='alice/large')"
        timed(f"5 GB up over {how}", 5 * GB, partial(with_client, url, token, scratch / "home", up, xet=xet))
        with large.open("r+b") as file:
            file.write(os.urandom(64))  # so that the second upload is not known already
    path = "/alice/large/resolve/main/xet.bin"
    timed("5 GB down", 5 * GB, partial(download, url, path, token, scratch / "down.bin"))


def scale(scratch: Path) -> None:
    """Many files, many senders, one very large file; the server's memory after each."""
    with served(scratch / "hub") as (url, token, pid):
        print(f"the server at rest: {peak_memory(pid):.0f} MB")
        for work in (many_files, crowd, very_large):
            work(url, token, scratch)
            print(f"the server's peak memory: {peak_memory(pid):.0f} MB", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="medllm-hub-") as place:
        {"speed": speed, "scale": scale}[sys.argv[1] if len(sys.argv) > 1 else "speed"](Path(place))
