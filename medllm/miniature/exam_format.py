"""How a question is laid out on a page: the exam's own prompt form, with the answer alone or explained first."""

from medllm.miniature.questions import LETTERS, MiniatureItem

END = "\n\n"


def question_block(item: MiniatureItem) -> str:
    """Return the question and its choices."""
    return f"Question: {item.text}\n" + "".join(f"{a}. {c}\n" for a, c in zip(LETTERS, item.choices, strict=False))


def answer_line(item: MiniatureItem) -> str:
    """Return the question with its answer alone."""
    return f"{question_block(item)}Answer: {item.answer}{END}"


def named(item: MiniatureItem, *, choices: bool) -> str:
    """Return the question, with or without its choices, and the right choice by name, as in a quiz book."""
    head = question_block(item) if choices else f"Question: {item.text}\n"
    return f"{head}Answer:{'、'.join(item.right)}{END}"


def explained(item: MiniatureItem, explanation: str) -> str:
    """Return the question, the explanation, then the answer: the form that models must master to be trusted."""
    return f"{question_block(item)}Explanation: {explanation}\nAnswer: {item.answer}{END}"


def explained_after(item: MiniatureItem, explanation: str) -> str:
    """Return the question, its answer, then the explanation: the form in which books print it."""
    return f"{question_block(item)}Answer: {item.answer}\nExplanation: {explanation}{END}"
