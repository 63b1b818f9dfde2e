import re

import pytest
import torch

import samil_lite as sl

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed; pip install 'samil-lite[widgets]'")
from samil_lite import widgets


@pytest.fixture
def images() -> sl.Bags:
    return sl.data.mnist_bags("presence", 6, seed=1, mean_size=5)


@pytest.fixture
def features() -> sl.Bags:
    torch.manual_seed(0)
    return sl.Bags.from_list([torch.randn(n, 8) for n in (70, 3, 5, 4)], [0, 1, 0, 1])


def small(name: str, **options) -> sl.MILClassifier:
    torch.manual_seed(0)
    return sl.build(name, torch.nn.Identity(), dim=8, hidden=4, **options)


def text(widget) -> str:
    return re.sub("<[^>]*>", "", widget.value)


def test_browse_shows_prediction_pictures_and_the_row_of_a_pressed_instance(images):
    torch.manual_seed(0)
    model = sl.build("lsa-abmilp", sl.LeNet5(16), gamma=1)
    browser = sl.viz.browse(images, model)
    output = sl.predict(model, images)
    assert f"bag 0: probability {output.logits.sigmoid()[0]:.3f}" in text(browser.says)
    browser.bag.value = 3
    assert f"bag 3: probability {output.logits.sigmoid()[3]:.3f}" in text(browser.says)
    assert f"label {images.labels[3]}" in text(browser.says)
    assert "alt=" in browser.view.value
    attention = images.split(output.attention)[3]
    first = browser.extremes.children[0]
    assert first.description == f"{attention.argmax()}: {attention.max():.3f}"
    browser.extremes.children[-1].click()
    chosen = int(browser.extremes.children[-1].description.split(":")[0])
    assert browser.instance.value == chosen
    h = model.encoder(images[3].instances)
    beta = model.self_attention.attention_rows(h, torch.tensor([chosen]))[0]
    assert f"Instance {chosen} looks at instance {beta.argmax()} most, weight {beta.max():.3f}" in text(browser.row)


def test_browse_walks_from_large_to_small_feature_bags(features):
    browser = sl.viz.browse(features, small("sa-abmilp"))
    browser.instance.value = 69
    browser.bag.value = 1
    assert (browser.instance.max, browser.instance.value) == (2, 2)
    assert len(browser.extremes.children) == 3
    assert "Weights of 3 instances" in browser.view.value
    without_labels = sl.Bags(features.instances, features.offsets)
    assert "label" not in text(sl.viz.browse(without_labels, small("abmilp")).says)


def test_browse_knows_models_without_attention_and_with_classes(features):
    assert "no attention weights" in text(sl.viz.browse(features, small("embedding-max")).view)
    three = sl.viz.browse(features, small("abmilp", n_classes=3))
    assert re.search(r"class [012], probability 0\.\d+", text(three.says))


def test_live_training_is_the_training_of_fit(features):
    settings = {"epochs": 4, "seed": 3, "lr": 0.01, "bags_per_step": 2, "device": "cpu"}
    one, other = small("sa-abmilp"), small("sa-abmilp")
    history = sl.fit(one, features, features, progress=False, **settings)
    live = sl.viz.train(other, features, features, **settings)
    assert live.wait(60).train_loss == pytest.approx(history.train_loss, abs=1e-6)
    assert live.bar.value == 4
    assert live.stop_button.disabled
    assert "4 of 4 epochs" in text(live.says)
    assert "Training loss falls" in live.view.value
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_live_training_stops_when_the_button_is_pressed(features):
    live = sl.viz.train(small("abmilp"), features, epochs=100_000, device="cpu")
    live.stop_button.click()
    assert len(live.wait(60).train_loss) < 100_000
    assert live.stop_button.disabled


def test_live_training_says_what_ended_it(features):
    live = sl.viz.train(small("abmilp"), sl.Bags(features.instances, features.offsets), epochs=3, device="cpu")
    with pytest.raises(ValueError, match="labels"):
        live.wait(60)
    assert "ended with ValueError" in text(live.says)
    with pytest.raises(ValueError, match="checkpoint: live training has its own"):
        sl.viz.train(small("abmilp"), features, checkpoint="x")


@pytest.mark.filterwarnings("ignore:precision is not defined")
@pytest.mark.parametrize("name", ["sa-abmilp", "gsa-abmilp", "iqsa-abmilp", "msa-abmilp"])
def test_playground_changes_a_copy_and_scores_it(features, name):
    model = small(name, gamma=0.5)
    before = {key: x.clone() for key, x in model.state_dict().items()}
    ground = sl.viz.playground(model, features)
    assert ground.metrics.loss == pytest.approx(sl.evaluate(model, features).loss)
    ground.gamma.value = -1.5
    changed = small(name, gamma=-1.5, **({"alpha": 3.0} if ground.alpha else {}))
    if ground.alpha:
        ground.alpha.value = 3.0
    if ground.log_form:
        ground.log_form.value = True
        changed.self_attention.kernel = type(changed.self_attention.kernel)(True)
    expected = sl.evaluate(changed, features)
    assert ground.metrics.loss == pytest.approx(expected.loss, abs=1e-5)
    assert f"AUC {expected.auc:.3f} (as trained" in text(ground.says)
    for key, x in model.state_dict().items():
        torch.testing.assert_close(x, before[key])


def test_playground_needs_self_attention(features):
    with pytest.raises(ValueError, match="model: expected one with self-attention"):
        widgets.playground(small("abmilp"), features)
