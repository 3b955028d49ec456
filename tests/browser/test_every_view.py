"""Every tab, on desktop and phone, in both languages, light and dark: whole, accessible, still, at home."""

import itertools

import pytest

from medllm.page.html import words
from tests.browser.conftest import SIZES, opened

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
HEADINGS = {"compare": ".matrix", "scores": "#figures .figures", "flips": "#list .count", "ask": ".panel",
            "review": "form.vote", "about": ".about"}  # fmt: skip

REPEATED_IDS = """() => { const ids = [...document.querySelectorAll('[id]')].map((part) => part.id).filter(Boolean);
  return ids.filter((id, at) => ids.indexOf(id) !== at); }"""


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "language", "scheme"),
    [
        pytest.param(*view, marks=[] if view == ("phone", "ja", "dark") else pytest.mark.long)
        for view in itertools.product(SIZES, ("ja", "en"), ("light", "dark"))
    ],
)
def test_every_tab_is_whole_accessible_and_at_home(chromium, site, axe, size, language, scheme):
    for seen in opened(chromium, site, size=size, language=language, scheme=scheme):
        received: list[dict] = []
        network = seen.page.context.new_cdp_session(seen.page)
        network.send("Network.enable")
        network.on("Network.loadingFinished", lambda event, kept=received: kept.append(event))
        for tab in HEADINGS:
            seen.open(f"?tab={tab}&lang={language}")
            assert tab != "compare" or 100_000 < sum(event["encodedDataLength"] for event in received) < 300_000, (
                "bytes of a first visit"
            )
            seen.page.wait_for_selector(HEADINGS[tab], state="visible")
            seen.page.wait_for_function("document.querySelector('.bar')?.innerText.trim()")
            assert words()["disclaimer"][language] in seen.page.inner_text(".bar")
            assert words()["simulated"][language] in seen.page.inner_text(".bar")
            assert seen.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{tab} is too wide"
            assert seen.page.evaluate("window.shifted") < 0.1, f"{tab} shifts"
            assert seen.page.evaluate(REPEATED_IDS) == []
            seen.page.evaluate(axe)
            found = seen.page.evaluate("rules => axe.run(document, { runOnly: rules })", RULES)
            assert found["passes"], "axe looked at nothing"
            violations = [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]]
            assert violations == [], f"{tab}: {violations}"
        assert seen.complaints == []
        assert seen.foreign == []
