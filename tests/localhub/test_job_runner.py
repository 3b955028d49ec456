"""Jobs through the real client: run, follow, cancel, and nothing left behind."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, Volume
from huggingface_hub.errors import HfHubHTTPError

from medllm.localhub import LocalHub, serve
from medllm.localhub.store import accounts


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with serve(tmp_path / "hub", user="alice", allow_jobs=True) as running:
        yield running


def lines_of(api: HfApi, number: str) -> list[str]:
    return list(api.fetch_job_logs(job_id=number, follow=True))


def wait_until(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_runs_here_and_its_lines_come_back(api: HfApi):
    job = api.run_job(image="any", command=["python", "-c", "print('a\\nb')"], labels={"name": "two-lines"})
    assert lines_of(api, job.id) == ["a", "b"]
    assert api.inspect_job(job_id=job.id).status.stage == "COMPLETED"
    assert [one.id for one in api.list_jobs(labels={"name": "two-lines"}, namespace="alice")] == [job.id]
    assert list(api.list_jobs(labels={"name": "other"}, namespace="alice")) == []


def test_a_failing_command_says_with_which_code(api: HfApi):
    job = api.run_job(image="any", command=["python", "-c", "raise SystemExit(3)"])
    assert lines_of(api, job.id) == []
    status = api.inspect_job(job_id=job.id).status
    assert (status.stage, status.message) == ("ERROR", "Job failed with exit code: 3")


def test_a_command_that_is_not_there_is_named_in_the_log(api: HfApi):
    job = api.run_job(image="any", command=["no-such-program"])
    assert lines_of(api, job.id) == ["cannot run no-such-program: No such file or directory"]


def test_a_secret_reaches_the_job_and_nothing_else(api: HfApi, hub: LocalHub):
    job = api.run_job(
        image="any", command=["python", "-c", "import os; print(len(os.environ['S']))"], secrets={"S": "hush-hush"}
    )
    assert lines_of(api, job.id) == ["9"]
    assert api.inspect_job(job_id=job.id).secrets == {"S": "***"}
    kept = [path for path in hub.store.folder.rglob("*") if path.is_file() and b"hush-hush" in path.read_bytes()]
    assert kept == []


def test_the_servers_own_secrets_do_not_reach_the_job(api: HfApi, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_SECRET", "x")
    job = api.run_job(image="any", command=["python", "-c", "import os; print('MY_SECRET' in os.environ)"])
    assert lines_of(api, job.id) == ["False"]


SPAWN = (
    "import subprocess, sys, time\np = subprocess.Popen(['sleep', '600'])\nprint(p.pid, flush=True)\ntime.sleep(600)"
)


def started(api: HfApi, hub: LocalHub) -> tuple[str, int]:
    job = api.run_job(image="any", command=["python", "-c", SPAWN])
    log = hub.store.folder / "jobs" / job.id / "log.jsonl"
    wait_until(lambda: log.is_file() and log.read_text().count("\n") >= 2)
    return job.id, int(json.loads(log.read_text().splitlines()[-1])["data"])


def test_cancelling_ends_what_the_job_has_started(api: HfApi, hub: LocalHub):
    number, pid = started(api, hub)
    assert is_alive(pid)
    api.cancel_job(job_id=number)
    assert api.inspect_job(job_id=number).status.stage == "CANCELED"
    wait_until(lambda: not is_alive(pid))


def test_stopping_the_hub_ends_its_jobs(tmp_path: Path):
    with serve(tmp_path / "hub", user="alice", allow_jobs=True) as hub:
        number, pid = started(HfApi(endpoint=hub.url, token=hub.token), hub)
    wait_until(lambda: not is_alive(pid))
    with serve(tmp_path / "hub", user="alice", allow_jobs=True) as hub:
        assert HfApi(endpoint=hub.url, token=hub.token).inspect_job(job_id=number).status.stage == "ERROR"


def test_a_job_that_takes_too_long_is_ended(api: HfApi):
    job = api.run_job(image="any", command=["sleep", "600"], timeout=1)
    assert lines_of(api, job.id) == []
    assert api.inspect_job(job_id=job.id).status.message == "Job timeout"


def test_a_local_script_travels_through_a_bucket(api: HfApi, tmp_path: Path):
    script = tmp_path / "work.py"
    script.write_text('# /// script\n# dependencies = ["numpy>1"]\n# ///\nimport sys\nprint("got", sys.argv[1:])\n')
    with pytest.warns(UserWarning, match="experimental"):
        job = api.run_uv_job(str(script), script_args=["--x", "1"], token=api.token)
    assert lines_of(api, job.id) == ["got ['--x', '1']"]


def test_a_volume_is_a_folder_and_a_bucket_keeps_what_is_written(api: HfApi):
    api.create_repo("alice/model")
    api.upload_file(path_or_fileobj=b"from the repo", path_in_repo="a/b.txt", repo_id="alice/model")
    api.create_bucket("alice/out")
    job = api.run_job(
        image="any",
        command=["bash", "-c", "cat /in/a/b.txt > /out/copy.txt"],
        volumes=[
            Volume(type="model", source="alice/model", mount_path="/in", read_only=True),
            Volume(type="bucket", source="alice/out", mount_path="/out"),
        ],
    )
    assert lines_of(api, job.id) == ["1 files went back to the bucket alice/out"]
    assert [(file.path, file.size) for file in api.list_bucket_tree("alice/out")] == [("copy.txt", 13)]


def test_jobs_are_off_unless_the_hub_was_set_otherwise(tmp_path: Path):
    with serve(tmp_path / "hub", user="alice") as hub, pytest.raises(HfHubHTTPError, match="--allow-jobs"):
        HfApi(endpoint=hub.url, token=hub.token).run_job(image="any", command=["true"], namespace="alice")


def test_only_the_owner_may_run_a_command(api: HfApi, hub: LocalHub):
    assert api.whoami()["name"] == "alice"
    with hub.store.database.write() as connection:
        bob = accounts.add_user(connection, "bob")
        token = accounts.issue(connection, bob, role="write", label="test")
        reading = accounts.issue(connection, accounts.add_user(connection, "alice"), role="read", label="test")
    for one, namespace in ((token, "bob"), (reading, "alice")):
        with pytest.raises(HfHubHTTPError) as caught:
            HfApi(endpoint=hub.url, token=one).run_job(image="any", command=["true"], namespace=namespace)
        assert caught.value.response.headers["X-Error-Code"] == "Forbidden"
    assert not (hub.store.folder / "jobs").exists()
