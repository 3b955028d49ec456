"""Runs huggingface_hub's own tests against the embedded Hub, and counts what passes and why the rest does not.

python benchmarks/hub_suite.py CHECKOUT --python CLIENT/bin/python [--only test_hf_api.py ...] [--list]

CHECKOUT is a clone of github.com/huggingface/huggingface_hub at the release that CLIENT has installed; CLIENT is a
virtual environment with that release and what its tests import:

    git clone --branch v1.28.0 https://github.com/huggingface/huggingface_hub CHECKOUT
    python -m venv CLIENT
    CLIENT/bin/pip install huggingface_hub==1.28.0 pytest pytest-mock pytest-asyncio pytest-timeout pytest-vcr \
        "urllib3<2" jinja2 numpy Pillow fastapi authlib itsdangerous duckdb safetensors

Their tests name the users and tokens of a server of Hugging Face; a plugin gives them this hub's instead. Tests
marked `production` or `inference` ask huggingface.co itself and are left out. A test counts as one of the hub's when
it sends at least one request to it.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree  # reads only the report that this program's own pytest writes
from collections import Counter
from pathlib import Path

from medllm.localhub import LocalHub, serve
from medllm.localhub.store import accounts

NAMES = """auth buckets buckets_cli buckets_hf_file_system cli cli_discussions commit_api commit_scheduler copy_files
file_download hf_file_system jobs_api repocard snapshot_download upload_pipeline verification xet_upload
xet_download tree_cache lfs hf_api"""
FILES = NAMES.split()
"""Their files in which some test asks a Hub; `hub_mixin` needs torch and is left out."""
USERS = {"TOKEN": "__DUMMY_HUB_USER__", "OTHER_TOKEN": "DVUser", "ENTERPRISE_TOKEN": "EnterpriseAdmin"}
ORGANISATIONS = {"valid_org": "__DUMMY_HUB_USER__", "EnterpriseOrgPrivate": "EnterpriseAdmin"}
PLUGIN = """
import os
import pytest
import tests.testing_constants as constants

for name in ("TOKEN", "OTHER_TOKEN", "ENTERPRISE_TOKEN"):
    setattr(constants, name, os.environ["SUITE_" + name])
constants.ENDPOINT_STAGING = os.environ["HF_ENDPOINT"]
now = []

def watch(library):
    plain, plain_async = library.Client.send, library.AsyncClient.send
    def send(self, request, **more):
        note(request)
        return plain(self, request, **more)
    async def send_async(self, request, **more):
        note(request)
        return await plain_async(self, request, **more)
    library.Client.send, library.AsyncClient.send = send, send_async

def note(request):
    if now and str(request.url).startswith(constants.ENDPOINT_STAGING):
        item = now[-1]
        if ("hub", "asked") not in item.user_properties:
            item.user_properties.append(("hub", "asked"))

for library in ("httpx", "httpx2"):
    try:
        watch(__import__(library))
    except ImportError:
        pass

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    now.append(item)
    try:
        return (yield)
    finally:
        now.pop()
"""


def furnish(hub: LocalHub) -> dict[str, str]:
    """Make the users and organisations that the tests name; the tokens by the names of their constants."""
    tokens = {}
    with hub.store.database.write() as connection:
        numbers = {}
        for constant, user in USERS.items():
            numbers[user] = accounts.add_user(connection, user)
            tokens[f"SUITE_{constant}"] = accounts.issue(connection, numbers[user], role="write", label="suite")
        for org, user in ORGANISATIONS.items():
            accounts.join(connection, org, numbers[user], "admin")
    return tokens


def run_suite(checkout: Path, python: Path, only: list[str], report: Path) -> None:
    """Run the tests in the client's environment against a new hub; the outcome goes into a JUnit report."""
    with tempfile.TemporaryDirectory() as scratch, serve(Path(scratch) / "hub", user=USERS["TOKEN"]) as hub:
        (Path(scratch) / "hub_suite_plugin.py").write_text(PLUGIN)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": f"{scratch}/home",
            "NO_PROXY": "127.0.0.1,localhost",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "PYTHONPATH": f"{scratch}:{checkout}",
        }
        asked = [f"tests/{name}" for name in only or [f"test_{name}.py" for name in FILES]]
        words = ["-q", "-p", "hub_suite_plugin", "-o", "addopts=", "-o", "env=", "--timeout=60", f"--junitxml={report}"]
        words += [
            "-p",
            "no:cacheprovider",
            "--continue-on-collection-errors",
            "-m",
            "not production and not inference",
            "--no-header",
            "--tb=short",
        ]
        command = [str(python), "-m", "pytest", *words, *asked]
        subprocess.run(command, cwd=checkout, env=kept | settings | furnish(hub), check=False, stdout=sys.stderr)


def reason(text: str) -> str:
    """What a failure says, short enough to be counted with others of its kind."""
    text = re.sub(r"https?://[\w.:]+", "", text.strip().split("\n")[0])
    text = re.sub(r"\(Request ID.*?\)|'[^']*[0-9]{6,}[^']*'|[\w-]*-[0-9a-f]{6}-[0-9]{8,}|[0-9a-f]{12,}", "…", text)
    return text[:150]


def main() -> None:
    """Run, count and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--list", action="store_true", help="name every test that did not pass")
    options = parser.parse_args()
    report = Path(tempfile.mkdtemp()) / "report.xml"
    run_suite(options.checkout.resolve(), options.python.absolute(), options.only, report)
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        fault = next((found for tag in ("failure", "error") if (found := case.find(tag)) is not None), None)
        place = "of the hub" if case.find("properties/property[@name='hub']") is not None else "without the hub"
        outcome = "failed" if fault is not None else "skipped" if case.find("skipped") is not None else "passed"
        outcomes[f"{outcome} {place}"] += 1
        if fault is not None:
            why = reason(fault.get("message") or fault.text or "")
            reasons[f"{place}: {why}"] += 1
            if options.list:
                print(f"{case.get('classname')}::{case.get('name')}  {why}")
    for counted in (outcomes, reasons):
        print()
        for what, count in counted.most_common():
            print(f"{count:5d}  {what}")


if __name__ == "__main__":
    main()
