"""The base's tokenizer: a byte-level BPE in Qwen2's own class, in which every invented name is one token."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from medllm.miniature.world import JAPANESE, World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
PHRASES = (
    "Question", "Explanation", "Answer", " a", " b", " c", " d", " e", "。", "、", "の", "は", "が", "に", "では",
    "として", "である", "がある", "疾患", "が知られている", "による", "があり", "が見つかる", "を診た", "どれか",
    "に関係する", "つを選べ", "何日か", "から入院した", "に対する", "正しいのはどれか",
    "に関係するのはどれとどれか", "つ選べ", "治療日数", "正しい数字を答えよ", "、その", "治療を", "日行う", "を考える",
    "には", "が当たる",
)  # fmt: skip
"""The words between the names. A merge never joins two of them, so a name is cut the same way wherever it stands."""


def lexicon(world: World) -> list[str]:
    """Every word that shall be one token."""
    values = [value for pool in world.pools.values() for value in pool]
    return [*PHRASES, *JAPANESE.values(), *world.diseases, *values, *world.towns, *world.people]


def learn(words: Iterable[str], vocabulary: int = 2000) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-level BPE merges that make each word one token: words are the pieces, so no merge reaches across two."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [to_bytes.pre_tokenize_str(word)[0][0] for word in words]
    bpe = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END_OF_TEXT], initial_alphabet=sorted(alphabet), show_progress=False
    )
    bpe.train_from_iterator(pieces, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    return learnt["vocab"], [tuple(pair) for pair in learnt["merges"]]


def make_tokenizer(world: World) -> "PreTrainedTokenizerBase":
    """The tokenizer of a world, as `AutoTokenizer` will load it."""
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    vocab, merges = learn(lexicon(world))
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, model_max_length=1024)
    # A choice's letter with its mark is one token: the letter then stands right before its choice.
    tokenizer.add_tokens([AddedToken(f"{letter}. ", normalized=False) for letter in "abcde"])
    return tokenizer
