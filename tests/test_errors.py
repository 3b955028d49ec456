"""The tree of faults in the docstring is the tree there is."""

import re

from medllm import errors


def test_the_tree_in_the_docstring_names_exactly_the_faults_there_are():
    drawn = set(re.findall(r"^ {4}[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE))
    there = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MedllmError) and value is not errors.MedllmError
    }
    assert drawn == there
