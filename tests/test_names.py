"""What was learned keeps its names: of bags and classes, through batches, training, saving and scoring."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import samil_lite as sl
from samil_lite.cards import card_of
from samil_lite.limits import Limited

NAMES = [f"slide_{b}" for b in range(6)]
CLASSES = ("MSS", "MSI-H")


def named(labels=("MSS", "MSI-H") * 3, classes=CLASSES, names=NAMES) -> sl.Bags:
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    return sl.Bags.from_list(list(x[: len(labels)]), list(labels), classes=classes, names=names[: len(labels)])


def model(name="abmilp", **options) -> nn.Module:
    torch.manual_seed(0)
    return sl.build(name, nn.Linear(4, 8), **options)


def fitted(train, validation=None, **options):
    net = model()
    sl.fit(net, train, validation, epochs=1, progress=False, device="cpu", **options)
    return net


def test_names_stay_with_their_bags():
    bags = named()
    for part in (bags[[4, 1]], bags[["slide_4", "slide_1"]], bags.to("cpu")[[4, 1]], sl.Bags.cat([bags[4], bags[1]])):
        assert (part.names, part.classes, part.labels.tolist()) == (("slide_4", "slide_1"), CLASSES, [0, 1])
        assert torch.equal(part[1].instances, bags["slide_1"].instances)
    drawn = Limited(bags, 2)[torch.tensor([3])]
    assert (drawn.names, drawn.classes, drawn.n_instances) == (("slide_3",), CLASSES, 2)
    assert "labels {'MSS': 3, 'MSI-H': 3}" in repr(bags)


@pytest.mark.parametrize(
    ("key", "message"), [("slide_9", "there are 0 of 6; did you mean slide_"), (["slide_0", "x"], "there are 0 of 6")]
)
def test_a_name_that_is_not_there(key, message):
    with pytest.raises(IndexError, match=message):
        named()[key]
    with pytest.raises(IndexError, match="these bags have no names"):
        sl.Bags.from_list([torch.zeros(2, 3)])[key]
    with pytest.raises(IndexError, match="there are 2 of 2"):
        named()[[0, 0]]["slide_0"]


def test_names_of_a_table_of_instances():
    rows = pd.DataFrame({"m": ["b", "a", "b"], "y": ["musk", "not", "musk"], "f": [1.0, 2.0, 3.0]})
    bags = sl.Bags.from_frame(rows, bag="m", label="y")
    assert (bags.names, bags.classes) == (("b", "a"), ("musk", "not"))
    assert bags["b"].instances[:, 0].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": NAMES[:5] * 2}, "names: expected 6 names, one for each bag"),
        ({"classes": ("a",)}, "classes: expected at least 2 names for these labels"),
        ({"classes": ("a", "a")}, "classes: expected the name of each class once"),
    ],
)
def test_names_that_do_not_fit(options, message):
    x = torch.zeros(6, 2)
    with pytest.raises(ValueError, match=message):
        sl.Bags(x, torch.arange(7), torch.tensor([0, 1] * 3), **options)
    with pytest.raises(ValueError, match=r"batches: expected one order of classes, got .*MSI-H.* and .*MSS"):
        sl.Bags.cat([named(), named(classes=CLASSES[::-1])])


def test_names_travel_to_the_model_its_file_and_its_predictions(tmp_path):
    bags = named()
    loaded = sl.load(sl.save(fitted(bags), tmp_path / "m.safetensors"))
    assert card_of(loaded).classes == CLASSES
    table = sl.predictions(loaded, bags)
    assert table["bag"].tolist() == NAMES
    assert table["label"].tolist() == ["MSS", "MSI-H"] * 3
    assert {"p_MSS", "p_MSI-H"} <= set(table.columns)
    assert [one.name for one in sl.evaluate(loaded, bags).by_class] == list(CLASSES)


def test_a_cohort_is_scored_by_the_names_of_classes_not_by_their_numbers():
    net = fitted(named())
    right = repr(sl.evaluate(net, named()))
    assert repr(sl.evaluate(net, named(classes=CLASSES[::-1]))) == right
    with pytest.warns(UserWarning, match="needs bags of all 2 classes"):
        lacking = sl.evaluate(net, named(["MSI-H"] * 6, classes=("MSI-H",)))  # numbered 0 there, 1 in the model
    assert lacking.accuracy == pytest.approx((sl.predict(net, named()).logits > 0).double().mean().item())
    with pytest.raises(ValueError, match="they have the class MSI-L, the model was trained on MSS, MSI-H"):
        sl.evaluate(net, named(["MSI-L", "MSS"] * 3, classes=("MSI-L", "MSS")))


def test_training_refuses_another_order_of_classes():
    with pytest.raises(
        ValueError, match=r"classes: expected one order .*train \('MSS', 'MSI-H'\), validation \('MSI-H'"
    ):
        fitted(named(), named(classes=CLASSES[::-1]))
    with pytest.raises(ValueError, match=r"classes: expected one order .*model \('MSS', 'MSI-H'\), train \('MSI-H'"):
        sl.fit(fitted(named()), named(classes=CLASSES[::-1]), epochs=1, progress=False, device="cpu")


def test_weights_of_another_kernel_are_refused_by_name(tmp_path):
    """A state's shapes do not tell one kernel from another: before, such weights loaded without a word."""
    net, path = model("iqsa-abmilp"), tmp_path / "run.pt"
    sl.fit(net, named()[:4], named()[4:], epochs=1, progress=False, device="cpu", checkpoint=path)
    stored = torch.load(path, weights_only=True)
    both = r"these weights were learned with InverseQuadratic\(log_scores=False\), this model has RBF"
    for state in (net.state_dict(), stored["model"], stored["best"]):
        model("iqsa-abmilp").load_state_dict(state)
        with pytest.raises(RuntimeError, match=both):
            model("gsa-abmilp").load_state_dict(state)
        model().load_state_dict(state, strict=False)  # AbMILP has no kernel to differ


def test_bytes_are_named_whatever_the_encoder():
    bags = sl.Bags.from_list([torch.ones(3, 4, dtype=torch.uint8)])
    for encoder in (nn.Linear(4, 4), nn.Identity()):
        with pytest.raises(ValueError, match=r"bags: .*uint8; convert them, as \.float\(\) does"):
            sl.predict(sl.build("abmilp", encoder, dim=4), bags)


def test_a_forgotten_encoder_is_named():
    with pytest.raises(ValueError, match=r"without an encoder it is LeNet5, for digits.*Linear\(768, 128\)"):
        sl.build("abmilp", dim=768)


def test_bags_on_disk_are_chosen_by_name_and_keep_it(tmp_path):
    for b in range(3):
        np.save(tmp_path / f"s{b}.npy", np.full((b + 1, 4), b, np.float32))
    table = pd.DataFrame({"slide_id": ["s0", "s1", "s2"], "label": ["MSS", "MSI-H", "MSS"]})
    slides = sl.data.feature_bags(tmp_path, table, classes=CLASSES)
    assert slides["s2"].instances.tolist() == [[2.0] * 4] * 3
    assert (slides["s2"].names, slides["s2"].classes) == (("s2",), CLASSES)
    assert slides[["s2", "s0"]].names == slides.subset(["s2", "s0"]).names == ("s2", "s0")
    with pytest.raises(IndexError, match="there are 0 of 3"):
        slides["s7"]
