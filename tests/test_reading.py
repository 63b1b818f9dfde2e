"""Reading ahead: the same bags in the same order, the next ones on their way while the current ones are used."""

import threading

import pytest
import torch

import samil_lite as sl
from samil_lite.reading import batches

BAGS = sl.data.mnist_bags(n_bags=10, mean_size=3)
STEPS = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7]).split(3)


class OnDisk:
    """Notes which bags are read, and in which thread."""

    read_ahead = True
    labels, n_instances = BAGS.labels, BAGS.n_instances

    def __init__(self) -> None:
        self.read: list[list[int]] = []
        self.threads: set[str] = set()
        self.change = threading.Condition()

    def __len__(self) -> int:
        return len(BAGS)

    def __getitem__(self, key: torch.Tensor) -> sl.Bags:
        with self.change:
            self.read.append(key.tolist())
            self.threads.add(threading.current_thread().name)
            self.change.notify_all()
        return BAGS[key]


def test_next_bags_are_read_while_the_current_ones_are_used():
    source = OnDisk()
    for number, bags in enumerate(batches(source, STEPS, torch.device("cpu"))):
        assert torch.equal(bags.instances, BAGS[STEPS[number]].instances)
        expected = min(number + 2, len(STEPS))  # would wait for ever if the next ones came only after this loop's body
        with source.change:
            assert source.change.wait_for(lambda n=expected: len(source.read) == n, timeout=60)
    assert source.read == [step.tolist() for step in STEPS]
    assert all(name.startswith("reading") for name in source.threads)


def test_other_sources_are_asked_when_it_is_their_turn():
    source = OnDisk()
    source.read_ahead = False  # it might draw random numbers
    for number, _ in enumerate(batches(source, STEPS, torch.device("cpu")), 1):
        assert len(source.read) == number
    assert source.threads == {threading.current_thread().name}
    assert not list(batches(source, [], torch.device("cpu")))


def test_training_is_the_same_and_a_broken_file_is_its_error():
    losses = []
    for source in (BAGS, OnDisk()):
        torch.manual_seed(0)
        model = sl.build("abmilp", sl.LeNet5(8))
        losses.append(sl.fit(model, source, source, epochs=2, bags_per_step=3, device="cpu", progress=False))
    assert losses[0].train_loss == losses[1].train_loss
    assert losses[0].validation_loss == pytest.approx(losses[1].validation_loss, abs=1e-6)  # other batches there
    assert losses[0].train_loss[0] != losses[0].train_loss[1]

    class Broken(OnDisk):
        def __getitem__(self, key):
            if 4 in key:
                raise ValueError("slide_4.h5 is broken")
            return super().__getitem__(key)

    before = threading.active_count()
    with pytest.raises(ValueError, match=r"slide_4\.h5 is broken"):
        sl.fit(model, Broken(), epochs=1, bags_per_step=3, device="cpu", progress=False)
    assert threading.active_count() == before
