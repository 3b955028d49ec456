"""Dates as people write them are understood, and what is no date is refused with the reason."""

from datetime import date

import pytest

from medllm.corpus.dates import read_date
from tests.refusals import refused


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2017-03-09", "2017-03-09"),
        ("2017/3/9", "2017-03-09"),
        ("2017年3月9日", "2017-03-09"),
        ("２０１７．３．９", "2017-03-09"),
        ("20170309", "2017-03-09"),
        ("2017-03-09T12:30:00+09:00", "2017-03-09"),
        ("2017-03-09 12:30", "2017-03-09"),
        ("2017", "2017-12-31"),
        (2017, "2017-12-31"),
        ("2016年2月", "2016-02-29"),
        ("平成29年", "2017-12-31"),
        ("平成２９年３月", "2017-03-31"),
        ("平成元年1月8日", "1989-01-08"),
        ("令和元年", "2019-12-31"),
        ("令和元年5月1日", "2019-05-01"),
        ("R6.2.3", "2024-02-03"),
        ("昭和64年1月7日", "1989-01-07"),
        ("S63", "1988-12-31"),
        ("平成31年4月30日", "2019-04-30"),
        (date(2015, 1, 2), "2015-01-02"),
    ],
)
def test_a_date_is_read_as_the_last_day_it_can_mean(written, meant):
    assert read_date(written).isoformat() == meant


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2017/13/45", "month 13"),
        ("2017-02-30", "month 2 of 2017 has no day 30"),
        ("平成40年", "平成 has"),
        ("令和元年4月30日", "令和 has"),
        ("9999-01-01", "year 9999"),
        ("きのう", "`きのう`"),
        ("", "``"),
        (None, "`None`"),
        ("3/9", "`3/9`"),
    ],
)
def test_what_is_no_date_is_refused_with_the_reason(written, value):
    with refused("corpus.bad-date", f"`{written}`", value, "平成29年3月31日"):
        read_date(written)
