import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

import samil_lite as sl
from samil_lite.data import download, mnist

assumptions = pytest.mark.parametrize("assumption", ["standard", "presence", "threshold"])
RULES = {
    "standard": lambda digits: 9 in digits,
    "presence": lambda digits: 9 in digits and 7 in digits,
    "threshold": lambda digits: digits.count(9) >= 2,
}


@assumptions
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("mean_size", [2, 10, 100])
def test_labels_follow_from_the_digits(assumption, balanced, mean_size):
    bags = sl.data.mnist_bags(assumption, 40, balanced=balanced, mean_size=mean_size)
    sl.checks.labelled_by(bags, RULES[assumption])
    assert bags.instances.shape == (bags.n_instances, 1, 28, 28)
    assert bags.instances.dtype == torch.float32
    if balanced:
        assert bags.labels.sum() == 20


@assumptions
def test_balanced_bags_have_the_distribution_of_natural_bags_with_that_label(assumption):
    """Counts of 9s and 7s among positive bags of ten: drawn with their label fixed, and picked from free draws."""
    fixed, free = (sl.data.mnist_bags(assumption, 6000, seed=s, std_size=0, balanced=s == 1) for s in (1, 2))

    def mean_counts(bags):
        positive = bags[bags.labels == 1].instance_labels.view(-1, 10)
        return torch.stack([(positive == d).sum(1).double().mean() for d in range(10)])

    torch.testing.assert_close(mean_counts(fixed), mean_counts(free), atol=0.1, rtol=0)


@pytest.mark.parametrize(("assumption", "expected"), [("standard", 0.651), ("presence", 0.409), ("threshold", 0.264)])
def test_natural_rates(assumption, expected):
    """1 − .9¹⁰, 1 − 2·.9¹⁰ + .8¹⁰ and 1 − .9¹⁰ − 10·.1·.9⁹, if each digit has probability .1."""
    rate = sl.data.mnist_bags(assumption, 4000, std_size=0, balanced=False).labels.double().mean()
    assert abs(rate - expected) < 0.04


def test_label_does_not_depend_on_size_when_balanced():
    bags = sl.data.mnist_bags("threshold", 2000, std_size=4)
    sizes = bags.sizes.double()
    assert abs(sizes[bags.labels == 1].mean() - sizes[bags.labels == 0].mean()) < 0.6
    assert bags.sizes.min() >= 2
    assert abs(sizes.mean() - 10) < 0.3
    assert abs(sizes.std() - 4) < 0.3


def test_the_same_seed_gives_the_same_bags_everywhere():
    """A stored sum, on purpose: this must not change with machines or versions."""
    bags = [sl.data.mnist_bags(a, 50, split, seed=4) for a in mnist.KEY_DIGITS for split in mnist.SPLITS]
    digest = hashlib.sha256()
    for one in bags:
        pixels = (one.instances * 0.3081 + 0.1307).mul(255).round().to(torch.uint8)
        for x in (one.offsets, one.labels, one.instance_labels, pixels):
            digest.update(x.numpy().tobytes())
    assert digest.hexdigest() == "bdb52d45030bf36902daf3b72302bf17483c8162b6deac9a9706039e86761005"


def test_another_seed_gives_other_bags():
    a, b = (sl.data.mnist_bags(n_bags=5, seed=s) for s in (0, 1))
    assert a.instance_labels.tolist() != b.instance_labels.tolist()


@pytest.mark.parametrize("pool", ["subset", "full"])
def test_splits_share_no_digit(pool, full_mnist):
    drawn = {}
    for split in mnist.SPLITS:
        images, digits = mnist._digits(pool, split)
        drawn[split] = {image.tobytes() for image in images}
        assert len(images) == len(digits)
    assert not drawn["train"] & drawn["validation"]
    train_images, _, test_images, _ = {"subset": mnist.subset_pool, "full": mnist.full_pool}[pool]()
    assert {image.tobytes() for image in test_images} == drawn["test"]
    assert {image.tobytes() for image in train_images} == drawn["train"] | drawn["validation"]


def test_subset_is_as_stated():
    train_images, train_digits, test_images, test_digits = mnist.subset_pool()
    assert train_images.shape == (10_000, 28, 28)
    assert test_images.shape == (4_000, 28, 28)
    assert np.bincount(train_digits).min() > 800
    assert np.bincount(test_digits).min() > 300
    assert mnist.SUBSET.stat().st_size < 3e6


@pytest.fixture
def full_mnist(tmp_path, monkeypatch):
    """Four small files in the format of the originals, known by their own sums, in SAMIL_DATA."""
    files = {}
    folder = tmp_path / "mnist"
    folder.mkdir()
    rng = np.random.RandomState(0)
    for name in mnist.FILES:
        n = 600 if name.startswith("train") else 200
        body = rng.randint(0, 256, (n, 784), np.uint8) if "images" in name else np.arange(n, dtype=np.uint8) % 10
        path = folder / name
        path.write_bytes(gzip.compress(b"\0" * (16 if "images" in name else 8) + body.tobytes(), mtime=0))
        files[name] = pooch.file_hash(str(path))
    monkeypatch.setattr(mnist, "FILES", files)
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path))
    mnist.full_pool.cache_clear()
    yield folder
    mnist.full_pool.cache_clear()


def test_full_pool_comes_from_the_folder(full_mnist):
    bags = sl.data.mnist_bags("presence", 20, pool="full")
    sl.checks.labelled_by(bags, RULES["presence"])


@pytest.mark.parametrize("damage", [lambda raw: raw[:50], lambda raw: raw[:-1] + b"x"], ids=["truncated", "tampered"])
def test_damaged_files_are_named(full_mnist, damage):
    path = full_mnist / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz is damaged .* expected SHA-256 .* delete it"):
        sl.data.mnist_bags(pool="full")


def test_real_full_mnist(monkeypatch):
    folder = Path(os.environ.get("SAMIL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "mnist").is_dir():
        pytest.skip("the full MNIST files are not here; set SAMIL_DATA to the folder that has mnist/")
    monkeypatch.setenv("SAMIL_DATA", str(folder))
    mnist.full_pool.cache_clear()
    train_images, train_digits, test_images, test_digits = mnist.full_pool()
    assert train_images.shape == (60_000, 28, 28)
    assert test_digits[:5].tolist() == [7, 2, 1, 0, 4]
    subset = mnist.subset_pool()
    assert (subset[0] == train_images[::6]).all()
    assert (subset[1] == train_digits[::6]).all()
    assert (subset[2] == test_images[np.arange(10_000) % 5 < 2]).all()


@pytest.fixture
def mirror(tmp_path):
    """A mirror is any address that pooch can open; a local file server stands in for the web."""
    import http.server
    import threading

    served = tmp_path / "served"
    served.mkdir()
    (served / "digits.gz").write_bytes(b"the right contents")
    handler = type(
        "Handler",
        (http.server.SimpleHTTPRequestHandler,),
        {
            "__init__": lambda self, *a: http.server.SimpleHTTPRequestHandler.__init__(self, *a, directory=served),
            "log_message": lambda *a: None,
        },
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", served
        server.shutdown()


RIGHT = hashlib.sha256(b"the right contents").hexdigest()


def test_download_from_the_first_mirror_that_works(tmp_path, monkeypatch, mirror):
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path / "data"))
    address, served = mirror
    path = download.fetch("mnist", "digits.gz", RIGHT, [f"{address}/missing", address])
    assert path == tmp_path / "data" / "mnist" / "digits.gz"
    assert path.read_bytes() == b"the right contents"
    assert [p.name for p in path.parent.iterdir()] == ["digits.gz"]
    (served / "digits.gz").unlink()
    assert download.fetch("mnist", "digits.gz", RIGHT, [address]) == path  # a second time needs no network


def test_download_with_wrong_contents_leaves_nothing(tmp_path, monkeypatch, mirror):
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path / "data"))
    address, served = mirror
    (served / "digits.gz").write_bytes(b"something else")
    with pytest.raises(OSError, match=r"cannot get digits.gz .* set SAMIL_DATA(.|\n)*hash"):
        download.fetch("mnist", "digits.gz", RIGHT, [address])
    assert not list((tmp_path / "data" / "mnist").iterdir())


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path / "data"))
    with pytest.raises(OSError, match=r"cannot get digits.gz .* Put the file there yourself(.|\n)*127.0.0.1:1"):
        download.fetch("mnist", "digits.gz", RIGHT, ["http://127.0.0.1:1"])


def test_unwritable_cache(tmp_path, monkeypatch, mirror):
    (tmp_path / "file").write_text("a file where the folder should be: not even root can write below it")
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot get digits.gz into .*set SAMIL_DATA"):
        download.fetch("mnist", "digits.gz", RIGHT, [mirror[0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"assumption": "majority"}, "assumption: expected one of standard, presence, threshold, got 'majority'"),
        ({"split": "dev"}, "split: expected one of train, validation, test, got 'dev'"),
        ({"pool": "half"}, "pool: expected one of subset, full, got 'half'"),
        ({"n_bags": 0}, "n_bags"),
        ({"mean_size": 0}, "mean_size"),
        ({"std_size": -1}, "std_size"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sl.data.mnist_bags(**arguments)
