"""Pass or fail by the ministry's rule: compulsory part, general part with each year's line, prohibited choices."""

from collections.abc import Sequence
from dataclasses import dataclass

from medllm.exam.record import Record


@dataclass(frozen=True, slots=True)
class PassLine:
    """The pass lines of a year as the ministry announced them, in points."""

    required: int
    required_total: int
    general: int
    general_total: int


LINES = {
    2018: PassLine(160, 200, 208, 299),
    2019: PassLine(160, 200, 209, 296),
    2020: PassLine(158, 197, 217, 299),
    2021: PassLine(160, 200, 209, 300),
    2022: PassLine(158, 197, 214, 297),
}
"""The announced lines of IgakuQA's exams, each with the total of its points."""

PROHIBITED_ALLOWED = 3
"""Prohibited choices that the rule of these years allows. The ministry never announced which choices are prohibited:
the labels are from IgakuQA's authors."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One year's result by the rule, with every number behind it."""

    year: int
    required: float
    required_line: int
    required_total: int
    general: float
    general_line: int
    general_total: int
    prohibited: int

    @property
    def passed(self) -> bool:
        """Whether all three parts of the rule are met."""
        return (
            self.required >= self.required_line
            and self.general >= self.general_line
            and self.prohibited <= PROHIBITED_ALLOWED
        )

    def __str__(self) -> str:
        return (
            f"{self.year}: {'pass' if self.passed else 'fail'}  required {self.required:g}/{self.required_total}"
            f" (line {self.required_line}), general {self.general:g}/{self.general_total} (line {self.general_line}),"
            f" prohibited choices {self.prohibited} (at most {PROHIBITED_ALLOWED})"
        )


def verdicts(records: Sequence[Record]) -> list[Verdict]:
    """Return the verdict of every year that was answered completely and whose line is known.

    A year is complete when its points add up to the announced totals, so a part of an exam never passes or fails.
    """
    found = []
    for year, line in LINES.items():
        sat = [record for record in records if record.year == year]
        required = [record for record in sat if record.required]
        general = [record for record in sat if not record.required]
        totals = tuple(sum(record.points_total for record in part) for part in (required, general))
        if totals != (line.required_total, line.general_total):
            continue
        found.append(
            Verdict(
                year,
                sum(record.points for record in required),
                line.required,
                line.required_total,
                sum(record.points for record in general),
                line.general,
                line.general_total,
                sum(record.prohibited is not None for record in sat),
            )
        )
    return found
