"""Which rows make an update: the same for every split over devices and micro-batches, and so the same adapter."""

import json

import pytest
from safetensors.torch import load_file

from medllm.stages import cpt, rpo
from medllm.training.updates import PositionedRows, RowPosition, UpdateBatches
from tests import tiny

SPLITS = [(1, 1), (2, 1), (8, 1), (1, 2), (4, 2), (1, 8), (2, 4)]


def batches(rows, per_device, devices, *, epoch=0, batch_size=8):
    """The micro-batches of every device, for an epoch."""
    dealt = []
    for rank in range(devices):
        mine = UpdateBatches(rows, batch_size=batch_size, per_device=per_device, rank=rank, devices=devices, seed=3)
        mine.set_epoch(epoch)
        dealt.append(list(mine))
        assert len(dealt[-1]) == len(mine)
    return dealt


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 14, 16, 29])
@pytest.mark.parametrize(("per_device", "devices"), SPLITS)
def test_every_split_has_the_same_rows_in_an_update_and_each_of_them_once(rows, per_device, devices):
    [alone] = batches(rows, 8, 1)
    dealt = batches(rows, per_device, devices)
    assert len({len(mine) for mine in dealt}) == 1, "devices that take part in unlike many exchanges hang"
    steps = 8 // (per_device * devices)
    for number, update in enumerate(alone):
        parts = [part for mine in dealt for part in mine[number * steps : (number + 1) * steps]]
        assert all(parts), "a device without a row still gets a micro-batch"
        places = [place for part in parts for place in part if place.row is not None]
        assert sorted(place.row for place in places) == sorted(place.row for place in update)
        assert {place.rows_in_update for place in places} == {len(update)}
    assert sorted(place.row for update in alone for place in update) == list(range(rows))


def test_the_order_is_accelerates_for_the_same_seed_and_another_in_the_next_epoch():
    from accelerate.data_loader import SeedableRandomSampler

    theirs = SeedableRandomSampler(range(29), data_seed=3)
    for epoch in (0, 1, 5):
        theirs.set_epoch(epoch)
        [alone] = batches(29, 1, 1, epoch=epoch)
        assert [place.row for [place] in alone] == list(theirs)
        theirs.generator = None


def test_a_rows_share_is_its_part_of_the_updates_mean_and_an_empty_place_has_none():
    rows = PositionedRows([{"text": "a"}, {"text": "b"}], {"text": ""})
    assert rows[RowPosition(1, 4)] == {"text": "b", "share": 0.25}
    assert rows[RowPosition(None, 4)] == {"text": "", "share": 0.0}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Fourteen pairs, and rows of unlike lengths, no multiple of the batch either."""
    folder = tmp_path_factory.mktemp("sources")
    base = tiny.make_base(folder / "base")
    corpus = tiny.make_corpus(folder / "corpus", 14, longest=60)
    pairs = tiny.make_pairs(folder / "preferences", 14)
    return {"base": base, "corpus": corpus, "preferences": pairs, "cpt": tiny.make_adapter(folder / "cpt", base)}


@pytest.mark.parametrize("name", ["cpt", "rpo"])
def test_the_adapter_does_not_depend_on_how_many_rows_a_device_takes_at_once(sources, tmp_path, name):
    stage, settings = {"cpt": (cpt, tiny.CPT), "rpo": (rpo, tiny.RPO)}[name]
    changes = {"total_batch_size": 8, "max_steps": 4, "lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    changes |= {"learning_rate": 1e-3} | ({"packing": False} if name == "cpt" else {})
    learnt = []
    for at_once in (1, 4, 8):
        changed = settings.model_copy(update={**changes, "per_device_train_batch_size": at_once})
        stage.make(changed, sources, tmp_path / str(at_once))
        learnt.append(load_file(tmp_path / str(at_once) / "adapter_model.safetensors"))
        facts = json.loads((tmp_path / str(at_once) / "facts.json").read_text("utf-8"))
        assert facts["epochs"] == 2, "counted by rows, not by micro-batches"
    moved = 4e-3  # four updates of AdamW, each of about the rate
    for key, tensor in learnt[0].items():
        for other in learnt[1:]:
            assert float((tensor - other[key]).abs().max()) < 0.05 * moved, key


def test_rows_of_a_group_stay_together_in_an_order_of_groups():
    groups = [0, 1, 0, 2, 1, 0, 3]
    changed = UpdateBatches(7, batch_size=4, per_device=2, rank=0, devices=1, seed=3, groups=groups)
    order = [place.row for part in changed for place in part]
    assert sorted(order) == list(range(7))
    blocks = [
        group for at, group in enumerate(groups[row] for row in order) if at == 0 or groups[order[at - 1]] != group
    ]
    assert sorted(blocks) == [0, 1, 2, 3], "each group in one piece"


def test_pairs_of_a_question_learnt_together_have_the_gradient_of_pair_by_pair(sources, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = tiny.sentences(24, seed=9, longest=14)
    rows = []
    for number in range(4):  # three answers to each question, all three pairs of them
        first, second, third = texts[3 * number : 3 * number + 3]
        asked = f"{texts[12 + number]} {texts[13 + number]}\n解説:"
        rows += [(asked, first, second), (asked, first, third), (asked, second, third)]
    columns = dict(zip(("prompt", "chosen", "rejected"), (list(side) for side in zip(*rows, strict=True)), strict=True))
    (tmp_path / "pairs").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "pairs" / "train.parquet")
    logs, norms = [], []
    for at_once in (1, 6):
        changed = {
            "order": "questions",
            "total_batch_size": 6,
            "max_steps": 2,
            "per_device_train_batch_size": at_once,
            "warmup_ratio": 0.0,
        }
        out = tmp_path / str(at_once)
        rpo.make(tiny.RPO.model_copy(update=changed), {**sources, "preferences": tmp_path / "pairs"}, out)
        lines = [json.loads(line) for line in (out / "training" / "log.jsonl").read_text("utf-8").splitlines()]
        logs.append([line["loss"] for line in lines])
        norms.append([line["grad_norm"] for line in lines])
    assert logs[1] == pytest.approx(logs[0], rel=1e-6)
    assert norms[1] == pytest.approx(norms[0], rel=1e-6)
