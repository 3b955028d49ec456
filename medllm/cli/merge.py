"""`medllm merge`: base and adapters to one model, shard by shard."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from medllm.cli.app import app


@app.command()
def merge(
    base: Annotated[Path, typer.Argument(help="Folder of the base model.")],
    adapters: Annotated[list[Path], typer.Argument(help="Adapter folders, in the order in which they were trained.")],
    out: Annotated[Path, typer.Option(help="Folder to write; an interrupted merge goes on in it.")],
    dtype: Annotated[str | None, typer.Option(help="bfloat16, float16 or float32; else the base's own.")] = None,
    parity_questions: Annotated[int, typer.Option(help="Questions of the parity certificate; 0 writes none.")] = 32,
    gguf: Annotated[str | None, typer.Option(help="Also write model.gguf: f32, bf16, f16 or q8_0.")] = None,
) -> None:
    """Merge adapters into their base, with a certificate.

    A tensor at a time, bit for bit as PEFT does, with a certificate of parity.
    """
    from medllm.errors import ModelError
    from medllm.stages.merge import FORMATS, merge_into, put_in_place
    from medllm.weights.adapter import Adapter

    if dtype not in (None, "bfloat16", "float16", "float32"):
        raise ModelError(
            "command.unknown-value", f"--dtype {dtype}: unsupported dtype. Give bfloat16, float16 or float32."
        )
    if gguf is not None and gguf not in FORMATS:
        raise ModelError("command.unknown-value", f"--gguf {gguf}: unsupported format. Give f32, bf16, f16 or q8_0.")
    if out.exists():
        raise ModelError("command.out-exists", f"{out}: already exists. Give a new folder, or remove it.")
    for adapter in map(Adapter, adapters):
        if not adapter.proven:
            warning = f"{adapter.folder}: names {adapter.base['name']} as its base, without a fingerprint of it"
            print(f"medllm: {warning}. Only its shapes can be compared with {base}.", file=sys.stderr)
    facts = merge_into(base, adapters, out, dtype=dtype, questions=parity_questions, gguf=gguf)
    put_in_place(out, facts)
    print(f"{out}  {facts['bytes'] / 1e9:.3f} GB")
    for name, value in (facts.get("certificate") or {}).items():
        if name != "faults":  # there are none: a failed certificate is an error
            print(f"  {name}: {value}")
