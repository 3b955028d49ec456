"""The encodings of Japanese files are recognised; what is no text is named."""

import pytest

from medllm.corpus.read.raw_files import decode, name_encoding
from tests.refusals import refused

TEXT = "症例は七十歳、男性。ガンマＧＴＰの上昇を指摘され、精査のため入院となった。CT検査を行った。\n" * 3


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp932", "euc_jp", "iso2022_jp", "utf-32"]
)
def test_japanese_is_read_in_every_encoding_it_is_written_in(encoding):
    assert decode(TEXT.encode(encoding)) == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "The dose was 25 µg at 37.5 °C; Hodgkin’s disease–patients",
        "Ménière’s and Sjögren’s syndrome",
        "für Ärzte – 5 mg/m²",
        "10 % … and 5 × 10³ cells ± 2",
        "São João, coração, função",
        "ÉTUDE CLINIQUE RÉALISÉE À PARIS",
        "37°C",
    ],
)
def test_western_text_of_windows_is_read_as_that_and_not_as_japanese(text):
    assert name_encoding(text.encode("cp1252")) == "cp1252"
    assert decode(text.encode("cp1252")) == text


@pytest.mark.parametrize(
    "text",
    [
        "急性虫垂炎\n肺炎\n心筋梗塞",
        "気管支喘息 bronchial asthma",
        "Crohn病の患者",
        "①正しい",
        "〒100",
        "α遮断薬",
        "５０μg",
        "黴菌",
    ],
)
@pytest.mark.parametrize("encoding", ["cp932", "euc_jis_2004"])
def test_short_japanese_among_latin_letters_stays_japanese(text, encoding):
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("боль в груди и температура. Пациент жалуется на кашель", "cp1251"),
        ("Πυρετός και βήχας", "cp1253"),
        ("żółć gęś", "cp1250"),
        ("Ménière 38.5 °C µg", "mac_roman"),
        ("发热和咳嗽的患者，给予治疗", "gbk"),
        ("發燒與咳嗽的病人", "big5"),
    ],
)
def test_an_encoding_that_is_not_recognised_is_refused_and_never_read_as_another(text, encoding):
    with refused("corpus.unknown-encoding"):
        decode(text.encode(encoding))


def test_utf_8_with_a_broken_byte_is_broken_utf_8_and_no_other_encoding():
    data = (TEXT * 3).encode()
    with refused("corpus.broken-encoding", "utf-8", "byte 300"):
        decode(data[:300] + b"\xff" + data[300:])


def test_utf_16_without_a_mark_is_read_in_both_orders_with_and_without_latin_letters():
    for text in (TEXT, "発熱を認めるので、かぜとみなす。"):
        assert decode(text.encode("utf-16-le")) == decode(text.encode("utf-16-be")) == text


def test_half_width_kana_of_iso_2022_jp_and_euc_are_read():
    assert decode("ﾊｲｴﾝﾉｳﾀｶﾞｲ".encode("iso2022_jp_ext")) == "ﾊｲｴﾝﾉｳﾀｶﾞｲ"
    assert decode("ﾊｲｴﾝﾉｳﾀｶﾞｲ".encode("euc_jp")) == "ﾊｲｴﾝﾉｳﾀｶﾞｲ"


def test_half_width_kana_in_shift_jis_are_not_taken_for_euc():
    text = "ﾊｲｴﾝﾉｳﾀｶﾞｲ。肺炎の疑いで胸部の撮影を行い、かげを認めた。"
    assert decode(text.encode("cp932")) == text


def test_a_sample_that_ends_inside_a_character_is_still_recognised():
    data = (TEXT * 1000).encode("utf-8")
    assert name_encoding(data[:65535]) == "utf-8"


@pytest.mark.parametrize(
    ("data", "code", "values"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "corpus.not-text", ()),
        (b"\xff\xfd\x80\x81\xa0\xff\xff\xc0", "corpus.unknown-encoding", ()),
        ("発熱".encode() * 40_000 + b"\xff\xff", "corpus.broken-encoding", ("utf-8", "byte 240000")),
    ],
)
def test_what_is_no_text_is_named(data, code, values):
    with refused(code, *values):
        decode(data)
