"""What datasets, transformers, peft, trl and gradio's Space must be able to do with the hub; run by test_matrix.py."""

import os
import tempfile
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard, HfApi, ModelCard, ModelCardData
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

me = HfApi().whoami()["name"]
scratch = tempfile.mkdtemp()


def data():
    name = f"{me}/preferences"
    rows = Dataset.from_dict({"prompt": [f"問{i}" for i in range(500)], "chosen": ["a"] * 500, "rejected": ["b"] * 500})
    DatasetDict(train=rows, test=rows.select(range(5))).push_to_hub(name, "rpo", private=True)
    Dataset.from_dict({"text": ["本文"] * 300}).push_to_hub(name, "corpus", private=True, max_shard_size="1KB")
    assert sorted(get_dataset_config_names(name)) == ["corpus", "rpo"]
    assert load_dataset(name, "rpo", cache_dir=scratch)["test"].num_rows == 5
    assert len(load_dataset(name, "corpus", split="train", cache_dir=scratch)) == 300
    streamed = load_dataset(name, "rpo", split="train", streaming=True)
    assert next(iter(streamed))["prompt"] == "問0"
    rows.select(range(7)).push_to_hub(name, "rpo", split="test")
    assert load_dataset(name, "rpo", cache_dir=scratch, download_mode="force_redownload")["test"].num_rows == 7
    HfApi().upload_file(
        path_or_fileobj=b'{"text":"a"}\n{"text":"b"}\n',
        path_in_repo="data/train.jsonl",
        repo_id=HfApi().create_repo(f"{me}/raw", repo_type="dataset").repo_id,
        repo_type="dataset",
    )
    assert load_dataset(f"{me}/raw", cache_dir=scratch)["train"].num_rows == 2


def tokenizer():
    words = Tokenizer(WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    made.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return made


def models():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model, words = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=2000)), tokenizer()
    base, sharded, adapter = f"{me}/base", f"{me}/sharded", f"{me}/adapter"
    model.push_to_hub(base, private=True)
    words.push_to_hub(base, private=True)
    model.push_to_hub(sharded, private=True, max_shard_size="200KB")
    assert sum(name.endswith(".safetensors") for name in HfApi().list_repo_files(sharded)) > 1
    for name in (base, sharded):
        back = AutoModelForCausalLM.from_pretrained(name)
        assert all(torch.equal(one, other) for one, other in zip(model.parameters(), back.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained(base).chat_template == words.chat_template
    lora = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules=["q_proj"]))
    lora.push_to_hub(adapter, private=True)
    assert type(AutoPeftModelForCausalLM.from_pretrained(adapter)).__name__ == "PeftModelForCausalLM"
    return base


def training(base):
    settings = SFTConfig(
        output_dir=f"{scratch}/sft",
        hub_model_id=f"{me}/trained",
        hub_private_repo=True,
        push_to_hub=True,
        hub_strategy="every_save",
        max_steps=2,
        save_steps=1,
        per_device_train_batch_size=1,
        max_length=8,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    rows = Dataset.from_dict({"text": ["a b a b"] * 4})
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base), settings, train_dataset=rows, processing_class=tokenizer()
    )
    trainer.train()
    trainer.push_to_hub()
    assert "model.safetensors" in HfApi().list_repo_files(f"{me}/trained")


def cards(base):
    card = ModelCard.from_template(
        ModelCardData(license="mit", base_model=base), template_str="---\n{{ card_data }}\n---\n# 医"
    )
    card.push_to_hub(base)
    assert ModelCard.load(base).data.license == "mit"
    assert HfApi().model_info(base).card_data.base_model == base
    DatasetCard("---\nlicense: cc-by-4.0\n---\n# Rows").push_to_hub(f"{me}/raw")
    assert DatasetCard.load(f"{me}/raw").data.license == "cc-by-4.0"


def space():
    api = HfApi()
    name = api.create_repo(f"{me}/comparator", repo_type="space", space_sdk="gradio").repo_id
    folder = Path(scratch) / "space"
    folder.mkdir()
    (folder / "README.md").write_text("---\ntitle: T\nsdk: gradio\nsdk_version: 6.31.0\napp_file: app.py\n---\n")
    (folder / "app.py").write_text("import gradio\n")
    api.upload_folder(folder_path=folder, repo_id=name, repo_type="space")
    assert api.space_info(name).sdk == "gradio"
    assert api.get_space_runtime(name).stage == "NO_APP_FILE"


if __name__ == "__main__":
    data()
    weights = models()
    training(weights)
    cards(weights)
    space()
    print("datasets, transformers, peft, trl and a Space speak to", os.environ["HF_ENDPOINT"])
