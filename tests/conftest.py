import matplotlib as mpl
import pytest
import torch
from hypothesis import settings

mpl.use("Agg")
settings.register_profile("project", deadline=None, max_examples=30)  # other tests run beside these, so no deadline
settings.load_profile("project")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
