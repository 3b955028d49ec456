"""Expect a refusal by its code and the values it names; the wording is free (docs/errors.md holds it)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from medllm.errors import MedllmError


@contextmanager
def refused(
    code: str, *values: object, kind: type[MedllmError] = MedllmError
) -> Iterator[pytest.ExceptionInfo[MedllmError]]:
    """Expect an error of that code whose text names every value (a place, a number, a word of the user).

    `kind` is the class of the error, where the caller depends on it.
    """
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, f"{caught.value.code}: {caught.value}"
    assert [str(value) for value in values if str(value) not in str(caught.value)] == [], str(caught.value)


def assert_refused(stderr: str, code: str, *values: object) -> None:
    """Check that a command ended with the error of that code, and that its message names every value."""
    message = stderr[stderr.rindex("medllm: ") :]
    assert message.endswith(f" [{code}]\n"), stderr
    assert [str(value) for value in values if str(value) not in message] == [], stderr
