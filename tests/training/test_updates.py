"""Which rows make an update: the same for every split over devices and micro-batches, and so the same adapter."""

import json

import pytest
from safetensors.torch import load_file

from medllm.stages import cpt, rpo
from medllm.training.updates import Place, Placed, UpdateBatches
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
    rows = Placed([{"text": "a"}, {"text": "b"}], {"text": ""})
    assert rows[Place(1, 4)] == {"text": "b", "share": 0.25}
    assert rows[Place(None, 4)] == {"text": "", "share": 0.0}


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
    changes = {"batch_size": 8, "max_steps": 4, "schedule": "constant", "warmup": 0.0}
    changes |= {"learning_rate": 1e-3} | ({"packing": False} if name == "cpt" else {})
    learnt = []
    for at_once in (1, 4, 8):
        told = settings.model_copy(update={**changes, "per_device_batch_size": at_once})
        stage.make(told, sources, tmp_path / str(at_once))
        learnt.append(load_file(tmp_path / str(at_once) / "adapter_model.safetensors"))
        facts = json.loads((tmp_path / str(at_once) / "facts.json").read_text("utf-8"))
        assert facts["epochs"] == 2, "counted by rows, not by micro-batches"
    moved = 4e-3  # four updates of AdamW, each of about the rate
    for key, tensor in learnt[0].items():
        for other in learnt[1:]:
            assert float((tensor - other[key]).abs().max()) < 0.05 * moved, key
