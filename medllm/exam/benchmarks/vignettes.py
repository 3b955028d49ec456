"""Vignettes that several questions share: each question's case, and the case text that the question itself lacks."""

import re
from dataclasses import dataclass

_HEAD = re.compile(r"次の文を読み、?(?:(\d+)[、,～〜~-]\s*(\d+)|以下)\s*の問いに答えよ。")
_NUMBER = re.compile(r"\d+$")
_ASKS = re.compile(r"(か|選べ|せよ|求めよ|答えよ)[。？?]?$")


def without_announcement(text: str) -> str:
    """Remove a case text's opening sentence, "read the following and answer questions 41 and 42"."""
    return _HEAD.sub("", text, count=1).strip()


def vignette_of(text: str) -> str:
    """Remove from a question's text the sentence that announces the case and the question asked at the end.

    >>> vignette_of("次の文を読み、40、41の問いに答えよ。22歳の女性。腹痛で来院した。行うのはどれか。2つ選べ。")
    '22歳の女性。腹痛で来院した。'
    """
    sentences = re.findall(r"[^。]*。|[^。]+$", without_announcement(text))
    while sentences and _ASKS.search(sentences[-1].strip()):
        asked = sentences.pop()
        if not asked.strip().endswith(("選べ。", "選べ")):
            break
    return "".join(sentences).strip()


@dataclass(frozen=True)
class Vignettes:
    """The cases of one exam section: question id to case id, and to the case text printed only in earlier questions."""

    groups: dict[str, str]
    lost_texts: dict[str, str]

    @classmethod
    def of(cls, questions: list[tuple[str, str]]) -> "Vignettes":
        """Find the cases among the (id, text) pairs of a section, by each case's announcing sentence.

        The sentence names the questions ("51～53") in 2018 and 2019; since 2020 it only reads "the following", and a
        case has two questions in sections B and E, three in C and F.
        """
        texts = dict(questions)
        groups: dict[str, str] = {}
        lost: dict[str, str] = {}
        for head, text in questions:
            if not (announced := _HEAD.match(text)):
                continue
            case = vignette_of(text)
            groups[head] = head
            for follower in _followers(head, announced):
                if follower not in texts or _HEAD.match(texts[follower]):
                    break
                groups[follower], lost[follower] = head, case
                case = "\n".join(part for part in (case, vignette_of(texts[follower])) if part)
        return cls(groups, lost)

    def group(self, question_id: str) -> str | None:
        """Return the case's id (its first question), or None for a question without a shared case."""
        return self.groups.get(question_id)

    def lost(self, question_id: str) -> str | None:
        """Return the case text that only the earlier questions of the case contain, or None."""
        return self.lost_texts.get(question_id)


def _followers(head: str, announced: re.Match[str]) -> list[str]:
    """Return the ids of the questions that follow a case's first one."""
    stem = _NUMBER.sub("", head)
    first = int(head.removeprefix(stem))
    last = int(announced.group(2)) if announced.group(2) else first + (1 if stem[-1] in "BE" else 2)
    return [f"{stem}{number}" for number in range(first + 1, last + 1)]
