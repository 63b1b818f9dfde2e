from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import settings

mpl.use("Agg")
settings.register_profile("project", deadline=None, max_examples=30)  # other tests run beside these, so no deadline
settings.load_profile("project")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_figure_left_open() -> Iterator[None]:
    """Or the tests that come after would depend on those before: pyplot warns of more than twenty."""
    yield
    plt.close("all")
