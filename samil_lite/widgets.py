"""Live figures beside a kernel: walk through bags, watch a training, change a kernel.

They need ipywidgets 7.7 or later; JupyterLab 4 draws those of ipywidgets 8 alone.

They stand in no stored notebook: where nothing runs, a figure of `samil_lite.explorables` does their work. Pictures
are PNGs in HTML with a text for those who cannot see them. `sl.viz` gives the three functions.
"""

import html
import tempfile
import threading
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from samil_lite import heatmap, kernels, viz
from samil_lite.attention import KernelSelfAttention
from samil_lite.bags import Bags
from samil_lite.checkpoints import History
from samil_lite.extras import from_extra
from samil_lite.figures import png
from samil_lite.metrics import Metrics, bag_metrics, check_labels
from samil_lite.models import MILClassifier
from samil_lite.training import BagSource, fit, predict

with from_extra("widgets", "live figures need ipywidgets"):
    import ipywidgets

SHOWN = 5  # instances in the lists of the largest and of the smallest weights
LOG_FORMS = (kernels.RBF, kernels.InverseQuadratic)


class Browser(ipywidgets.VBox):  # type: ignore[misc]
    """Bags one after the other, with what a model says of them; made by `browse`.

    Attributes:
        bag: the slider over bags.
        instance: the slider over the instances of the bag, for the row of β.
        says: prediction and label.
        view: attention on the bag: pictures, a map where instances have places, or a strip.
        row: β of the chosen instance; empty for models without self-attention.
        extremes: buttons for the instances of largest and smallest weight; pressing one chooses it.
    """

    def __init__(self, bags: BagSource, model: MILClassifier, names: list[str]) -> None:
        self.bags, self.model, self.names = bags, model, names
        layout = ipywidgets.Layout(width="95%")
        self.bag = ipywidgets.IntSlider(0, 0, len(bags) - 1, description="bag", layout=layout)
        self.instance = ipywidgets.IntSlider(0, 0, 0, description="instance", layout=layout)
        self.says, self.view, self.row = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        self.extremes = ipywidgets.HBox(layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.bag.observe(self._show_bag, "value")
        self.instance.observe(self._show_row, "value")
        with_row = [self.instance, self.row] if model.self_attention is not None else []
        super().__init__([self.bag, self.says, self.view, self.extremes, *with_row])
        self._show_bag()

    def _show_bag(self, _: Any = None) -> None:
        number = self.bag.value
        self._bag = self.bags[number]
        output = predict(self.model, self._bag)
        self.attention = output.attention
        self.says.value = _paragraph(f"{self.names[number]}: {_prediction(output.logits, self._bag.labels)}")
        if self.attention is None:
            self.view.value = _paragraph("This model has no attention weights.")
            return
        self.view.value = _attention_picture(self._bag, self.attention)
        self.extremes.children = self._buttons(self.attention)
        self.instance.max = self._bag.n_instances - 1  # a smaller one moves the slider, and shows its row
        self._show_row()

    def _buttons(self, attention: Tensor) -> list[Any]:
        """The instances of largest weight, then those of smallest, each once."""
        order = attention.argsort(descending=True).tolist()
        chosen = dict.fromkeys([*order[:SHOWN], *order[-SHOWN:]])
        buttons = []
        for i in chosen:
            text = f"{i}: {float(attention[i]):.3f}"
            button = ipywidgets.Button(description=text, tooltip=f"instance {i}, weight {float(attention[i]):.4f}")
            button.on_click(lambda _, i=i: setattr(self.instance, "value", i))
            buttons.append(button)
        return buttons

    def _show_row(self, _: Any = None) -> None:
        if self.model.self_attention is None:
            return
        row = heatmap.beta_row(self.model, self._bag, self.instance.value)
        top = int(row.argmax())
        text = f"Instance {self.instance.value} looks at instance {top} most, weight {float(row[top]):.3f}."
        self.row.value = _attention_picture(self._bag, row, text)


def browse(bags: BagSource, model: MILClassifier) -> Browser:
    """Walks through bags of your own: prediction, attention, the instances of largest and smallest weight, rows of β.

    Args:
        bags: image or feature bags, with labels or without; `Bags` or an object that reads them when asked.
        model: trained on such bags.

    Returns:
        A widget that a notebook shows when it is the last line of a cell.

    Raises:
        ImportError: if ipywidgets is not installed.
        ValueError: if there is no bag.
    """
    if not len(bags):
        raise ValueError("bags: expected at least one, got none")
    names = [str(name) for name in getattr(bags, "names", None) or []] or [f"bag {i}" for i in range(len(bags))]
    return Browser(bags, model, names)


class LiveTraining(ipywidgets.VBox):  # type: ignore[misc]
    """A training that runs beside the notebook, with its curves and a button that stops it; made by `train`.

    Attributes:
        history: losses so far.
        stop_button: stops after the epoch that runs; so does `stop()`.
        error: what ended the training, if something did.
    """

    def __init__(self, step: Callable[[int, str], History], model: nn.Module, epochs: int) -> None:
        self.history = History()
        self.error: Exception | None = None
        self._step, self._model, self._epochs = step, model, epochs
        self._stopped = threading.Event()
        self.stop_button = ipywidgets.Button(description="Stop", tooltip="stop after this epoch")
        self.stop_button.on_click(lambda _: self.stop())
        self.bar = ipywidgets.IntProgress(0, 0, epochs, description="epoch")
        self.says, self.view = ipywidgets.HTML(_paragraph("The first epoch runs.")), ipywidgets.HTML()
        super().__init__([ipywidgets.HBox([self.bar, self.stop_button]), self.says, self.view])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the training after the epoch that runs; the model keeps its best weights so far."""
        self._stopped.set()
        self.stop_button.disabled = True

    def wait(self, seconds: float | None = None) -> History:
        """Waits until the training has ended and returns its history.

        Raises:
            TimeoutError: if it has not ended after so many seconds.
            Exception: the one that ended the training, if one did.
        """
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"the training still runs after {seconds} seconds")
        if self.error is not None:
            raise self.error
        return self.history

    def _run(self) -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                for epoch in range(1, self._epochs + 1):
                    if self._stopped.is_set():
                        break
                    self.history = self._step(epoch, f"{folder}/run.pt")
                    self._show()
                    if len(self.history.train_loss) < epoch:  # patience has ended it
                        break
        except Exception as error:  # shown here, for nobody sees what a thread raises
            self.error = error
            self.says.value = _paragraph(f"The training ended with {type(error).__name__}: {error}")
        finally:
            self.stop_button.disabled = True

    def _show(self) -> None:
        self.bar.value = done = len(self.history.train_loss)
        best = self.history.best_epoch + 1
        self.says.value = _paragraph(f"{done} of {self._epochs} epochs; the model has the weights of epoch {best}.")
        self.view.value = _picture(viz.losses(self.history), viz.describe_losses(self.history))


def train(
    model: nn.Module, train: BagSource, validation: BagSource | None = None, *, epochs: int = 40, **options: Any
) -> LiveTraining:
    """`samil_lite.fit` with moving curves and a stop button; the notebook stays free while it runs.

    The run is the one that `fit` makes with the same arguments: it goes on from a checkpoint after every epoch.

    Args:
        model: trained in place.
        train: labelled bags.
        validation: labelled bags that choose the epoch.
        epochs: at most so many.
        options: of `samil_lite.fit`, but for `checkpoint` and `progress`.

    Raises:
        ImportError: if ipywidgets is not installed.
        ValueError: if `checkpoint` or `progress` is given.
    """
    if taken := {"checkpoint", "progress"} & options.keys():
        raise ValueError(f"{', '.join(sorted(taken))}: live training has its own; take samil_lite.fit to choose it")

    def step(epoch: int, checkpoint: str) -> History:
        return fit(model, train, validation, epochs=epoch, checkpoint=checkpoint, progress=False, **options)

    return LiveTraining(step, model, epochs)


class Playground(ipywidgets.VBox):  # type: ignore[misc]
    """Controls for the self-attention of a trained model, and what they do to its scores; made by `playground`.

    Attributes:
        gamma: the slider of γ.
        alpha: the slider of α; None for kernels without.
        log_form: the box of the log form; None for kernels without.
        metrics: the scores with the controls as they stand.
    """

    def __init__(self, model: MILClassifier, bags: Bags) -> None:
        self._model = deepcopy(model).eval().requires_grad_(False)
        self._layer: KernelSelfAttention = self._model.self_attention  # type: ignore[assignment]
        self._labels = check_labels(bags.labels, model.n_classes).cpu()
        with torch.no_grad():
            device = next(self._model.parameters()).device
            self._h, self._offsets = self._model.encoder(bags.instances.to(device)), bags.offsets.to(device)
        gamma = float(self._layer.gamma)
        reach = max(2.0, 2 * abs(gamma))
        self.gamma = ipywidgets.FloatSlider(gamma, min=-reach, max=reach, step=0.01, description="γ")
        self.alpha = self.log_form = None
        controls = [self.gamma]
        if self._layer.alpha is not None:
            start = float(self._layer.alpha)
            low, high = (float(torch.tensor(start).log10()) + shift for shift in (-3, 3))
            self.alpha = ipywidgets.FloatLogSlider(start, min=low, max=high, step=0.05, description="α")
            controls.append(self.alpha)
        if isinstance(self._layer.kernel, LOG_FORMS):
            self.log_form = ipywidgets.Checkbox(self._layer.kernel.log_scores, description="log form")
            controls.append(self.log_form)
        self.says = ipywidgets.HTML()
        self._start = self._scores()
        for control in controls:
            control.observe(self._show, "value")
        super().__init__([*controls, self.says])
        self._show()

    def _scores(self) -> Metrics:
        """Scores of the changed model: the embeddings are kept, all that follows is computed again."""
        with torch.no_grad():
            h = self._layer(self._h, self._offsets)
            logits = self._model.classifier(self._model.pool(h, self._offsets)[0]).cpu()  # (B, C)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at some settings no bag is called positive; the numbers say NaN
            return bag_metrics(logits.squeeze(-1) if self._model.n_classes == 1 else logits, self._labels)

    def _show(self, _: Any = None) -> None:
        self._layer.gamma.fill_(self.gamma.value)
        if self.alpha is not None and self._layer.raw_alpha is not None:
            alpha = torch.tensor(self.alpha.value, dtype=torch.float64)
            self._layer.raw_alpha.fill_(float(alpha + torch.log(-torch.expm1(-alpha))))  # softplus of this is α
        if self.log_form is not None:
            self._layer.kernel = type(self._layer.kernel)(self.log_form.value)  # type: ignore[call-arg]
        self.metrics = self._scores()
        parts = [
            f"{name} {getattr(self.metrics, key):.3f} (as trained {getattr(self._start, key):.3f})"
            for name, key in (("AUC", "auc"), ("accuracy", "accuracy"), ("loss", "loss"))
        ]
        self.says.value = _paragraph(", ".join(parts))


def playground(model: MILClassifier, bags: Bags) -> Playground:
    """Changes γ, α and the form of the kernel of a trained model, and shows what happens to its scores.

    Works on a copy: the model itself stays as it is.

    Args:
        model: with self-attention.
        bags: labelled, such as the test bags; their embeddings are computed once.

    Raises:
        ImportError: if ipywidgets is not installed.
        ValueError: if the model has no self-attention, or the bags no labels.
    """
    if getattr(model, "self_attention", None) is None or model.instance_level:
        raise ValueError("model: expected one with self-attention before its pooling, this one has none")
    return Playground(model, bags)


def _prediction(logits: Tensor, labels: Tensor | None) -> str:
    if logits.ndim == 1:
        p = float(logits.sigmoid()[0])
        text, called = f"probability {p:.3f}, {'positive' if p > 0.5 else 'negative'}", int(p > 0.5)
    else:
        shares = logits.softmax(1)[0]
        called = int(shares.argmax())
        text = f"class {called}, probability {float(shares[called]):.3f}"
    if labels is None:
        return text
    label = int(labels.reshape(-1)[0])
    return f"{text}; label {label}, {'right' if label == called else 'wrong'}"


def _attention_picture(bag: Bags, weights: Tensor, text: str = "") -> str:
    """Weights on the instances of a bag: on their pictures, at their places, or as a strip of bars."""
    if bag.instances.ndim == 4 and bag.n_instances <= 60:
        alt = viz.describe_bag(bag, weights)
        return _picture(viz.bag(bag, weights, titles=[""]), alt, text)
    if bag.coordinates is not None:
        return _picture(heatmap.heatmap(bag, weights), heatmap.describe_heatmap(bag, weights), text)
    figure, axis = viz._axes(6, 1.8)
    axis.bar(range(len(weights)), weights.numpy(), width=1.0, color=viz.WEIGHT)
    axis.set(xlabel="instance", ylabel="weight")
    top = int(weights.argmax())
    alt = f"Weights of {len(weights)} instances; the largest, {float(weights[top]):.3f}, is of {top}."
    return _picture(figure, alt, text)


def _picture(figure: Figure, alt: str, text: str = "") -> str:
    """A figure as HTML with a text for those who cannot see it, and one for all below it."""
    picture = png(figure, ground="white")
    image = f'<img style="max-width:100%" alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
    return image + (_paragraph(text) if text else "")


def _paragraph(text: str) -> str:
    return f'<p role="status">{html.escape(text)}</p>'
