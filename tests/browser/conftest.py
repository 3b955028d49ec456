"""A page in headless Chromium: served from made-up results, watched for console errors and foreign requests."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.page.simulated import write

CHROMIUM = "/usr/bin/chromium"
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
AXE = "axe-core@4.14.1"
PATIENCE = 120_000
SIZES = {"desktop": (1440, 900), "tablet": (820, 1180), "phone": (390, 844)}

WATCH = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (!one.hadRecentInput) window.shifted += one.value;
})  .observe({ type: 'layout-shift', buffered: true });
window.ran = [];
window.alert = (what) => { window.ran.push(String(what)); };
"""


def served(tmp_path_factory, **settings) -> Iterator[str]:
    """A page on a free port, closed afterwards."""
    from medllm.page.serve import PageSettings, free_port, serve

    address, close = serve(PageSettings(port=free_port(), **settings), block=False)
    yield address
    close()


@pytest.fixture(scope="session")
def evaluation_folder(tmp_path_factory) -> Path:
    """Made-up results."""
    return write(tmp_path_factory.mktemp("shown"), per_section=12)


@pytest.fixture(scope="session")
def site(tmp_path_factory, evaluation_folder) -> Iterator[str]:
    """The address of a page over them, with votes."""
    yield from served(tmp_path_factory, results=str(evaluation_folder), votes=tmp_path_factory.mktemp("votes"))


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium, driven by playwright; absent in CI is a failure, not a skip."""
    if not Path(CHROMIUM).exists():
        reason = f"no {CHROMIUM}: apt-get install chromium fonts-noto-cjk"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """The accessibility checker's source, fetched by npm once into a cache outside the tree."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "medllm-tests"
    script = home / AXE / "package" / "axe.min.js"
    if not script.exists():
        script.parent.parent.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", AXE, "--silent"], cwd=script.parent.parent, capture_output=True, text=True, timeout=300
        )
        if packed.returncode:
            reason = f"npm could not fetch {AXE}: {packed.stderr[-300:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        archive = next(script.parent.parent.glob("*.tgz"))
        subprocess.run(["tar", "xzf", archive.name], cwd=script.parent.parent, check=True)
    return script.read_text(encoding="utf-8")


@dataclass
class Seen:
    """A browser tab and what it complained of."""

    page: object
    address: str
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, query: str = "") -> None:
        """Open the page and wait until it is shown."""
        self.page.goto(self.address + query, wait_until="domcontentloaded", timeout=PATIENCE)
        self.page.wait_for_function("document.documentElement.classList.contains('medllm-ready')", timeout=PATIENCE)

    def wait(self, script: str, argument: object = None) -> None:
        """Wait until something is true in the page."""
        self.page.wait_for_function(script, arg=argument, timeout=PATIENCE)


def opened(chromium, address: str, *, size="desktop", language="ja", scheme="light") -> Iterator[Seen]:
    """A fresh browser profile on an address."""
    width, height = SIZES[size]
    context = chromium.new_context(
        viewport={"width": width, "height": height}, locale="ja-JP" if language == "ja" else "en-US",
        is_mobile=size == "phone", has_touch=size == "phone", color_scheme=scheme,
    )  # fmt: skip
    context.add_init_script(WATCH)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    seen = Seen(page, address)
    page.on(
        "console",
        lambda message: seen.complaints.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda fault: seen.complaints.append(str(fault)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((address, "data:", "blob:")) else seen.foreign.append(asked.url),
    )
    yield seen
    context.close()


@pytest.fixture
def tab(chromium, site) -> Iterator[Seen]:
    """A desktop tab in Japanese on the page."""
    yield from opened(chromium, site)
