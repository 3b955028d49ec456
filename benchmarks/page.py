"""The page under load: start, memory, time to use, bytes of a visit, 64 viewers and 32 live six-way streams at once.

    python benchmarks/page.py [--viewers 64] [--streams 32] [--long]

With `--long`: 3,000 questions with long Markdown replies of twelve models, under two prompts, and no live models.
Prints one line of JSON. Answers are made up, written at 40 pieces a second and cell; the browser is Debian's Chromium.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from medllm.generation.types import Delta, Reply, Request
from medllm.page.live import Live
from medllm.page.serve import PageSettings, free_port, serve
from tests.browser.conftest import CHROMIUM, QUIET
from tests.page.simulated import TWELVE, write

PIECES = 120


class Writer:
    """A generator that writes 40 pieces a second to every request."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer without streaming."""
        return (delta.reply for delta in self.stream(requests) if delta.reply)

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Write piece by piece."""
        for _ in range(PIECES):
            for request in requests:
                yield Delta(request.key, "発熱")
            time.sleep(1 / 40)
        for request in requests:
            reply = Reply(
                key=request.key, text="答え：a", finish_reason="stop", prompt_tokens=1, completion_tokens=PIECES
            )
            yield Delta(request.key, "", reply)


def memory() -> float:
    """Megabytes this process holds now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024, 1)


LONG = (
    "## 解説\n\n### 1. 病態の整理\n\n- **主訴**：「発熱」と咳が続く。\n- **所見**：SpO2 {number} %、湿性ラ音。\n\n"
    "| 選択肢 | 評価 | 理由 |\n|:--|:--|:--|\n| a | ✗ | 第一選択ではない |\n| b | ○ | 適切である |\n\n"
    + "この所見からは細菌性肺炎を第一に考え、画像検査と培養を行い、$\\frac{{1}}{{2}}$ 量から開始する。\n\n" * 24
    + "よって正解は b。\n\n答え：b"
)
"""A reply of 1,500 characters as instruct models write them, made up."""


def write_long(folder: Path) -> Path:
    """Write 3,000 questions and their 72,000 replies, the explained ones long and all different."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    write(folder, per_section=750, models=TWELVE)
    (file,) = (folder / "records").glob("*.parquet")
    table = pq.read_table(file)
    prompts = table.column("prompt").to_pylist()
    texts = [LONG.format(number=row) if prompt == "explain" else "答え：b" for row, prompt in enumerate(prompts)]
    pq.write_table(table.set_column(table.column_names.index("completion"), "completion", pa.array(texts)), file)
    return folder


SWITCH = """async () => {
  const name = () => document.querySelector('#card h2').innerText, times = [];
  const key = (place) => document.querySelector(place).dataset.key;
  for (let turn = 0; turn < 12; turn++) {
    const before = name(), began = performance.now();
    document.querySelector('#go-next').click();
    await new Promise((done) => {
      const there = () => name() !== before && key('#grid .columns') === key('#card [data-key]');
      const look = () => requestAnimationFrame(there() ? done : look);
      look();
    });
    times.push((performance.now() - began) / 1000);
    await new Promise((rest) => setTimeout(rest, 250));
  }
  return times.slice(2);
}"""
"""Seconds from a click to the frame that shows the next question with its replies, ten times."""


def browser_times(address: str) -> dict[str, Any]:
    """Seconds to first paint and to use, and from a click to the next question, as the median of five visits.

    On a machine that others use too, the processor time of the page's thread tells more than the clock does.
    """
    from playwright.sync_api import sync_playwright

    paints, uses, clicks, worked, bytes_of = [], [], [], [], []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            line = page.context.new_cdp_session(page)
            received: list[float] = []
            line.send("Network.enable")
            line.on("Network.loadingFinished", lambda event, kept=received: kept.append(event["encodedDataLength"]))
            line.send("Performance.enable", {"timeDomain": "threadTicks"})
            began = time.monotonic()
            page.goto(address, wait_until="domcontentloaded")
            page.wait_for_function("document.documentElement.classList.contains('medllm-ready')")
            uses.append(time.monotonic() - began)
            metrics = {one["name"]: one["value"] for one in line.send("Performance.getMetrics")["metrics"]}
            worked.append(metrics["TaskDuration"])
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            paints.append(page.evaluate(paint) / 1000)
            bytes_of.append(sum(received))
            clicks += page.evaluate(SWITCH)
            page.close()
        browser.close()
    names = ("first_paint", "usable", "next_question", "processor_until_usable", "bytes_of_first_visit")
    figures: dict[str, Any] = {
        name: round(statistics.median(times), 3)
        for name, times in zip(names, (paints, uses, clicks, worked, bytes_of), strict=True)
    }
    return figures | {"next_question_longest": round(max(clicks), 3)}


async def viewers(address: str, count: int) -> dict[str, Any]:
    """Each viewer loads the page and its config, then asks for a comparison five times."""
    times, faults = [], 0

    async def view(client: httpx.AsyncClient) -> None:
        nonlocal faults
        for path in ("", "config", *(f"medllm/comparison.md?q=kakuu/115A{number}" for number in range(1, 6))):
            began = time.monotonic()
            answer = await client.get(f"{address}{path}")
            times.append(time.monotonic() - began)
            faults += answer.status_code != 200

    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=count)) as client:
        await asyncio.gather(*(view(client) for _ in range(count)))
    ordered = sorted(times)
    return {"requests": len(times), "faults": faults, "p50": round(statistics.median(times), 3),
            "p95": round(ordered[int(len(ordered) * 0.95)], 3)}  # fmt: skip


async def streams(address: str, count: int) -> dict[str, Any]:
    """Each reader starts a six-way stream and follows it to its end."""
    firsts: list[float] = []
    faults = 0
    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=count * 2)) as client:
        config = (await client.get(f"{address}config")).json()
        button = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "go")
        event = next(
            one["id"] for one in config["dependencies"] if [button, "click"] in [list(t) for t in one["targets"]]
        )

        async def follow(number: int) -> None:
            nonlocal faults
            session, began, seen = f"bench{number}", time.monotonic(), False
            body = {"data": ["kakuu/115A1"], "fn_index": event, "session_hash": session, "trigger_id": button}
            (await client.post(f"{address}gradio_api/queue/join", json=body)).raise_for_status()
            async with client.stream("GET", f"{address}gradio_api/queue/data?session_hash={session}") as answer:
                async for line in answer.aiter_lines():
                    figures = json.loads(line[5:]) if line.startswith("data:") else {}
                    if figures.get("msg") == "process_generating" and not seen:
                        firsts.append(time.monotonic() - began)
                        seen = True
                    if figures.get("msg") == "process_completed":
                        faults += not figures["success"]
                        return

        began = time.monotonic()
        await asyncio.gather(*(follow(number) for number in range(count)))
    ordered = sorted(firsts)
    return {"streams": count, "cells": count * 6, "faults": faults,
            "first_text_p50": round(statistics.median(ordered), 3),
            "first_text_p95": round(ordered[int(len(ordered) * 0.95)], 3),
            "all_done": round(time.monotonic() - began, 1), "written_in": round(PIECES / 40, 1)}  # fmt: skip


def main() -> None:
    """Measure everything once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=64)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--long", action="store_true")
    asked = parser.parse_args()
    writer = Writer()
    live = Live({name: (writer, name) for name in ("base", "cpt", "final")}, "bench")
    with tempfile.TemporaryDirectory() as folder:
        shown = write_long(Path(folder)) if asked.long else write(Path(folder), per_section=75)
        began = time.monotonic()
        address, close = serve(
            PageSettings(results=str(shown), port=free_port(), live=None if asked.long else live), block=False
        )
        figures: dict[str, Any] = {"start": round(time.monotonic() - began, 2), "idle_megabytes": memory()}
        figures["config_bytes"] = len(httpx.get(f"{address}config").content)
        figures["load_average"] = round(os.getloadavg()[0], 1)
        before = time.process_time()
        figures["browser"] = browser_times(address)
        figures["server_processor_per_visit"] = round((time.process_time() - before) / 5, 3)
        figures["viewers"] = asyncio.run(viewers(address, asked.viewers))
        if not asked.long:
            figures["live"] = asyncio.run(streams(address, asked.streams))
        figures["threads_left"] = sum("_answer" in thread.name for thread in threading.enumerate())
        figures["busy_megabytes"] = memory()
        print(json.dumps(figures, ensure_ascii=False))
        close()


if __name__ == "__main__":
    main()
