"""One licence has one name, however it is written; none is never allowed."""

import pytest

from medllm.corpus.licences import read_license


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("CC BY 4.0", "cc-by-4.0"),
        ("cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("https://creativecommons.org/licenses/by-nc-nd/4.0/", "cc-by-nc-nd-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/deed.ja", "cc0-1.0"),
        ("CC0", "cc0-1.0"),
        ("Apache 2.0", "apache-2.0"),
        ("MIT License", "mit"),
        ("ＭＩＴ", "mit"),
        ("公共データ利用規約（第1.0版）", "pdl-1.0"),
        ("unknown", None),
        ("不明", None),
        ("", None),
        (None, None),
    ],
)
def test_a_license_has_one_spelling(written, name):
    assert read_license(written) == name
