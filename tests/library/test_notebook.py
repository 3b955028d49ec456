"""docs/notebook.md, run as it is: from a folder of replies to a figure in ten lines."""

import contextlib
import io
import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "notebook.md").read_text(encoding="utf-8")
FILES = re.findall(r"^<!-- (\S+) -->\n```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
CODE = re.search(r"^```python\n(.*?)^```\n\n```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PNG = b"\x89PNG\r\n\x1a\n"


def test_ten_lines_lead_from_replies_to_a_figure_and_print_what_the_page_shows(tmp_path, monkeypatch):
    assert CODE is not None and len([line for line in CODE[1].splitlines() if line]) == 10
    for name, text in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    *lines, last = CODE[1].rstrip().splitlines()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec("\n".join([*lines, f"shown = {last}"]), names)
    assert [line.rstrip() for line in printed.getvalue().splitlines()] == CODE[2].rstrip().splitlines()
    assert Path("stability.png").read_bytes().startswith(PNG)
    assert names["shown"]._repr_png_().startswith(PNG)
