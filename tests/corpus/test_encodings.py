"""The encodings of Japanese files are recognised; what is no text is named."""

import pytest

from medllm.corpus.encodings import decode, name_encoding
from medllm.errors import DataError

TEXT = "症例は七十歳、男性。ガンマＧＴＰの上昇を指摘され、精査のため入院となった。CT検査を行った。\n" * 3


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp932", "euc_jp", "iso2022_jp", "utf-32"]
)
def test_japanese_is_read_in_every_encoding_it_is_written_in(encoding):
    assert decode(TEXT.encode(encoding)) == TEXT


def test_half_width_kana_in_shift_jis_are_not_taken_for_euc():
    text = "ﾊｲｴﾝﾉｳﾀｶﾞｲ。肺炎の疑いで胸部の撮影を行い、かげを認めた。"
    assert decode(text.encode("cp932")) == text


def test_a_sample_that_ends_inside_a_character_is_still_recognised():
    data = (TEXT * 1000).encode("utf-8")
    assert name_encoding(data[:65535]) == "utf-8"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not_text: it holds zero bytes, so it is a binary file or UTF-16"),
        (
            b"\xff\xfd\x80\x81\xa0\xff\xff\xc0",
            "unknown_encoding: neither UTF-8, UTF-16, Shift_JIS, EUC-JP nor ISO-2022-JP",
        ),
        (
            "発熱".encode() * 40_000 + b"\xff\xff",
            "broken_encoding: it begins as utf-8, but byte 240000 does not belong",
        ),
    ],
)
def test_what_is_no_text_is_named(data, message):
    with pytest.raises(DataError) as fault:
        decode(data)
    assert str(fault.value).startswith(message)
