"""Batches by instances and bags of at most so many: what is drawn, kept together, read, and repeatable."""

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

import samil_lite as sl
from samil_lite.data import layouts
from samil_lite.limits import BAGS, INSTANCES, Limited, steps_within


class Sized:
    def __init__(self, sizes):
        self.sizes, self.n_instances = torch.tensor(sizes), sum(sizes)

    def __len__(self):
        return len(self.sizes)


def test_steps_hold_as_many_instances_as_are_allowed():
    rng = np.random.RandomState(0)
    for mean in (1, 300, 3000, 20_000):
        sizes = rng.randint(1, 2 * mean + 1, 200).tolist()
        steps = steps_within(Sized(sizes))
        assert torch.cat(steps).tolist() == list(range(200))
        held = [sum(sizes[b] for b in step) for step in steps]
        assert all(
            len(step) <= BAGS and (n <= INSTANCES or len(step) == 1) for step, n in zip(steps, held, strict=True)
        )
        for (step, n), following in zip(zip(steps, held, strict=True), steps[1:], strict=False):
            assert len(step) == BAGS or n + sizes[following[0]] > INSTANCES  # no smaller than it must be
    assert [len(step) for step in steps_within(Sized([5] * 10), bags_per_step=4)] == [4, 4, 2]


def in_memory(n_bags=6, n=40):
    rows = torch.arange(n_bags * n).float()
    return sl.Bags(
        rows[:, None].expand(-1, 3).contiguous(),
        torch.arange(0, n_bags * n + 1, n),
        torch.arange(n_bags) % 2,
        instance_labels=rows.long(),
        coordinates=torch.stack([rows, -rows], 1),
    )


@pytest.fixture(params=["contiguous", "chunks", "pt", "npy"])
def on_disk(request, tmp_path):
    """The same bags in files, with the number of each row as its features."""
    for b, bag in enumerate(in_memory()):
        x, xy = bag.instances.numpy(), bag.coordinates.numpy()
        if request.param == "pt":
            torch.save({"features": bag.instances.half(), "coords": bag.coordinates}, tmp_path / f"s{b}.pt")
        elif request.param == "npy":
            np.save(tmp_path / f"s{b}.npy", x[None])
        else:
            with h5py.File(tmp_path / f"s{b}.h5", "w") as file:
                options = {"chunks": (7, 3), "compression": "gzip"} if request.param == "chunks" else {}
                file.create_dataset("feats", data=x, **options)
                file.create_dataset("coords", data=xy.astype(int))
    table = pd.DataFrame({"slide_id": [f"s{b}" for b in range(6)], "label": [0, 1] * 3})
    return sl.data.feature_bags(tmp_path, table)


def test_at_most_so_many_are_drawn_and_what_belongs_to_them_stays(on_disk):
    whole = in_memory()
    for bags in (whole, on_disk):
        limited = Limited(bags, 10)
        assert (len(limited), limited.n_instances, limited.sizes.tolist()) == (6, 60, [10] * 6)
        part = limited[[4, 1, 4]]
        assert part.sizes.tolist() == [10] * 3
        assert part.labels.tolist() == [0, 1, 0]
        rows = part.instances[:, 0]
        assert (rows // 40).tolist() == [4] * 10 + [1] * 10 + [4] * 10
        assert all(len(set(one.tolist())) == 10 and (one.diff() > 0).all() for one in part.split(rows))
        if part.coordinates is not None:
            assert torch.equal(part.coordinates, torch.stack([rows, -rows], 1))
        if part.instance_labels is not None:
            assert torch.equal(part.instance_labels, rows.long())
        assert torch.equal(Limited(bags, 40)[:].instances, whole.instances)
    assert torch.equal(Limited(on_disk, 10)[[2, 3]].instances, Limited(whole, 10)[[2, 3]].instances)


def test_a_draw_follows_the_seed_and_leaves_the_generator_alone():
    limited = Limited(in_memory(), 10)
    draws = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        draws.append(limited[[0, 1]].instances)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
    often = torch.zeros(240)
    for seed in range(400):
        torch.manual_seed(seed)
        often[limited[:].instance_labels] += 1
    assert 60 < often.min() < often.max() < 145  # each is drawn in a quarter of 400


def test_fit_draws_anew_in_each_epoch_and_a_resumed_run_the_same(tmp_path, monkeypatch):
    seen = []
    read = Limited.__getitem__

    def watched(self, key):
        bags = read(self, key)
        seen.append(frozenset(bags.instances[:, 0].tolist()))
        return bags

    monkeypatch.setattr(Limited, "__getitem__", watched)
    whole = in_memory()
    bags = sl.Bags(whole.instances / 240, whole.offsets, whole.labels)

    def run(epochs, **options):
        torch.manual_seed(0)
        model = sl.build("abmilp", torch.nn.Identity(), dim=3, hidden=4)
        return sl.fit(
            model, bags, bags, epochs=epochs, bags_per_step=6, max_instances=8, progress=False, device="cpu", **options
        )

    history = run(4)
    assert len(set(seen)) == len(seen) == 4
    assert all(len(one) == 48 for one in seen)
    path = tmp_path / "run.pt"
    run(2, checkpoint=path)
    assert run(4, checkpoint=path).train_loss == history.train_loss
    with pytest.raises(ValueError, match="max_instances"):
        sl.fit(
            sl.build("abmilp", torch.nn.Identity(), dim=3, hidden=4), bags, bags, epochs=4, bags_per_step=6,
            max_instances=9, progress=False, device="cpu", checkpoint=path,
        )  # fmt: skip
    with pytest.raises(ValueError, match="max_instances: expected"):
        sl.fit(sl.build("abmilp", torch.nn.Identity(), dim=3), bags, epochs=1, max_instances=0)


def test_only_drawn_rows_of_a_file_in_one_piece_are_read(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "s0.h5", "w") as file:
        file["features"] = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    bags = sl.data.feature_bags(tmp_path, pd.DataFrame({"slide_id": ["s0"]}), label=None)
    sizes = []
    copy = layouts._tensor
    monkeypatch.setattr(layouts, "_tensor", lambda part: sizes.append(len(part)) or copy(part))
    part = Limited(bags, 20)[0]
    assert sizes == [20]
    assert (part.instances[:, 0] % 3 == 0).all()


def test_predicting_takes_batches_by_instances_and_gives_the_same(on_disk, monkeypatch):
    from samil_lite import limits

    model = sl.build("gsa-abmilp", torch.nn.Linear(3, 8), dim=8)
    whole = sl.predict(model, in_memory())
    monkeypatch.setattr(limits, "INSTANCES", 90)
    batches = []
    read = type(on_disk).__getitem__
    monkeypatch.setattr(type(on_disk), "__getitem__", lambda self, key: batches.append(len(key)) or read(self, key))
    part = sl.predict(model, on_disk)
    assert batches == [2, 2, 2]
    torch.testing.assert_close(part.logits, whole.logits)
    torch.testing.assert_close(part.attention, whole.attention)
