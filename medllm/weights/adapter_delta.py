"""What an adapter does to one tensor of the base: as it is stored, and in memory as PEFT does it, to the last bit."""

from dataclasses import dataclass

import torch
from safetensors import safe_open

from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import DTYPES, Tensor


@dataclass(frozen=True)
class AdapterChange:
    """What one adapter does to one tensor: exactly one of the four is given."""

    adapter: Adapter
    module: str | None = None
    """The module whose factors are multiplied and added."""
    replaced: Tensor | None = None
    """The tensor that replaces it."""
    bias: str | None = None
    """The module whose bias is added to."""
    rows: str | None = None
    """The module some of whose rows are replaced."""


@dataclass(frozen=True)
class Factors:
    """An adapter's change in memory: two factors and their scale, an addend, some rows, or a whole tensor."""

    narrow: torch.Tensor | None = None
    wide: torch.Tensor | None = None
    scale: float = 1.0
    transposed: bool = False
    """Whether the module is an embedding, whose change is stored transposed."""
    added: torch.Tensor | None = None
    """What is added to a bias, times `scale`."""
    rows: torch.Tensor | None = None
    numbers: tuple[int, ...] = ()
    """New values of these rows."""
    replaced: torch.Tensor | None = None
    lengths: torch.Tensor | None = None
    """DoRA: the length that each row of the changed weight gets."""

    def on(self, part: torch.Tensor, rows: slice) -> torch.Tensor:
        """These rows of the tensor with the change; the products are ordered as PEFT's are, for the same bits."""
        if self.replaced is not None:
            return self.replaced[rows].to(part.dtype)
        if self.added is not None:
            return (part.float() + self.added[rows] * self.scale).to(part.dtype)
        if self.rows is not None:
            inside = [at for at, number in enumerate(self.numbers) if rows.start <= number < rows.stop]
            places = torch.tensor([self.numbers[at] - rows.start for at in inside], dtype=torch.long)
            return part.index_copy(0, places, self.rows[inside].to(part.dtype))
        assert self.narrow is not None and self.wide is not None
        if self.lengths is not None:
            whole = part.float() + self.wide[rows] @ self.narrow * self.scale
            factor = self.lengths[rows] / torch.linalg.norm(whole, dim=1)
            return (factor.view(-1, 1) * whole).to(part.dtype)
        if not self.transposed:
            return (part.float() + self.wide[rows] @ self.narrow * self.scale).to(part.dtype)
        # An embedding's change is rounded to the base's numbers before it is added, and once more after.
        delta = ((self.wide @ self.narrow[:, rows]).T * self.scale).to(part.dtype)
        return (part.float() + delta.float()).to(part.dtype)


def read_factors(change: AdapterChange) -> Factors:
    """Read a change from the adapter's file; factors and addends in float32."""
    adapter = change.adapter
    with safe_open(str(adapter.path), "pt") as file:
        if change.replaced is not None:
            return Factors(replaced=file.get_tensor(change.replaced.name))
        if change.bias is not None:
            added = file.get_tensor(adapter.biases[change.bias].name).float()
            return Factors(added=added, scale=adapter.scale(change.bias))
        if change.rows is not None:
            tensor, numbers = adapter.rows[change.rows]
            return Factors(rows=file.get_tensor(tensor.name), numbers=numbers)
        assert change.module is not None
        narrow, wide = adapter.modules[change.module]
        a, b = file.get_tensor(narrow.name).float(), file.get_tensor(wide.name).float()
        lengths = adapter.magnitudes.get(change.module)
        rows = None if lengths is None else file.get_tensor(lengths.name).float()
    return Factors(a, b, adapter.scale(change.module), "embedding" in narrow.name, lengths=rows)


def lasting(factors: list[Factors]) -> list[Factors]:
    """What is left to do: a replacement makes everything before it void."""
    last = max((at for at, factor in enumerate(factors) if factor.replaced is not None), default=0)
    return factors[last:]


def table(factors: list[Factors], tensor: Tensor) -> torch.Tensor:
    """The whole table that an adapter brings, in the numbers of the base's own."""
    assert factors[0].replaced is not None
    return factors[0].replaced.to(DTYPES[tensor.dtype])
