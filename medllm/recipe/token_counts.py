"""Tokens of a training, as far as the recipe and its folders decide them."""

from pathlib import Path

from medllm.recipe.reference import parse_reference
from medllm.recipe.settings import Corpus, Cpt, DataSource, Recipe, Rpo

BYTES_PER_TOKEN = 3.4
"""Qwen2.5's tokenizer on Japanese medical text: 2.97 on package inserts, 3.5 on case reports and exams, 3.9 on
encyclopedia paragraphs, measured."""

PLAIN = frozenset({".csv", ".html", ".htm", ".json", ".jsonl", ".md", ".txt"})
"""Files whose bytes are text; the size of others (parquet, PDF) does not give their text's."""


def trained_tokens(recipe: Recipe, settings: Cpt | Rpo) -> int | None:
    """Count the tokens of a training, over all epochs; None when the recipe does not decide them.

    An upper bound for pairs and for steps: rows may be shorter than `max_length`.
    """
    rows = 2 if isinstance(settings, Rpo) else 1
    if settings.max_steps:
        return settings.max_steps * settings.total_batch_size * settings.max_length * rows
    if settings.num_train_epochs is None:
        return None
    if isinstance(settings, Cpt):
        size = corpus_tokens(recipe) if settings.data == "corpus" else None
        return None if size is None else int(size * settings.num_train_epochs)
    pairs = most_pairs(recipe) if settings.data == "preferences" else None
    return None if pairs is None else int(pairs * rows * settings.max_length * settings.num_train_epochs)


def corpus_tokens(recipe: Recipe) -> float | None:
    """Add up the tokens of the sources before any document is dropped; None when a size is unknown."""
    corpus = recipe.corpus
    if corpus is None:
        return None
    sizes = [_source_tokens(recipe, source) for source in corpus.data]
    if None in sizes:
        return None
    return sum(size or 0 for size in sizes) / (1 - _replayed(corpus))


def _replayed(corpus: Corpus) -> float:
    return corpus.replay.share if corpus.replay else 0.0


def _source_tokens(recipe: Recipe, source: DataSource) -> float | None:
    if source.tokens:
        return source.tokens
    if parse_reference(source.source).where != "folder":
        return None
    size = text_bytes(recipe.folder / source.source)
    if size is None:
        return None
    # An exam item with an explanation is written out once for each prompt.
    times = len(recipe.corpus.formats) if source.exam and recipe.corpus else 1
    return size / BYTES_PER_TOKEN * times


def text_bytes(folder: Path) -> int | None:
    """Add up the bytes of a folder's text files; None when it has other files, or none."""
    files = [path for path in (folder.rglob("*") if folder.is_dir() else [folder]) if path.is_file()]
    if not files or any(path.suffix not in PLAIN for path in files):
        return None
    return sum(path.stat().st_size for path in files)


def most_pairs(recipe: Recipe) -> int | None:
    """Compute the largest possible number of pairs; None when the number of questions is unknown."""
    settings = recipe.preferences
    if settings is None or settings.questions is None:
        return None
    return settings.questions * settings.pairs_per_question * len(settings.pairs)
