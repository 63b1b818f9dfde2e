"""MNIST bags: sets of handwritten digits, labelled by which digits they contain."""

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.special import gammaln

from samil_lite.arguments import at_least, checked
from samil_lite.bags import Bags
from samil_lite.data.arrays import read_npz
from samil_lite.data.download import fetch
from samil_lite.files import naming, read_gzip

SUBSET = Path(__file__).with_name("mnist_subset.npz")
KEY_DIGITS = {"standard": (9,), "presence": (9, 7), "threshold": (9,)}
SPLITS = ("train", "validation", "test")
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
FILES = {  # name: SHA-256
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MOST_PACKED = 9_912_422  # bytes of the largest of these files

WHOLE = 200  # counts listed on either side of the mean however small the bag: all of them, up to 200 digits
CACHED = 400  # digits of the largest bag whose table is kept; it has about a million bytes

Pool = tuple[np.ndarray, np.ndarray]  # images (n, 28, 28) and digits (n,), both uint8


@checked(seed=at_least(0))
def mnist_bags(
    assumption: str = "standard",
    n_bags: int = 200,
    split: str = "train",
    seed: int = 0,
    mean_size: float = 10,
    std_size: float = 2,
    balanced: bool = True,
    pool: str = "subset",
) -> Bags:
    r"""Bags of handwritten digits, labelled by a rule on the digits they contain.

    ========== ================== =============================================
    assumption positive if        source
    ========== ================== =============================================
    standard   a 9                Ilse et al. (2018)
    presence   a 9 and a 7        Rymarczyk et al. (2021), as summarised
    threshold  two 9s or more     Rymarczyk et al. (2021), as summarised
    ========== ================== =============================================

    Sizes are drawn from :math:`N(\text{mean}, \text{std}^2)` and rounded, at least 1 (2 where the label asks for two
    instances). Balanced bags are drawn in the order size, label, digits: the label is a fair coin that does not
    depend on the size, then the digits follow their distribution given both. Otherwise digits are drawn freely and
    decide the label. Images are drawn with replacement. Pixels are scaled by the mean .1307 and deviation .3081.

    Args:
        assumption: "standard", "presence" or "threshold".
        n_bags: number of bags, B.
        split: "train", "validation" or "test". Each has digits of its own: every fifth image of MNIST's training side
            is set aside for validation, and test bags come from MNIST's test side.
        seed: the same seed gives the same bags on every machine and every version of the libraries.
        mean_size: mean of the bag size, in instances.
        std_size: its standard deviation, in instances.
        balanced: whether half of the bags are positive (exactly, for an even number of bags).
        pool: "subset" for the 10,000 + 4,000 digits inside the package, "full" for all 60,000 + 10,000, from
            the folder SAMIL_DATA or downloaded.

    Returns:
        Bags of instances (N, 1, 28, 28), float32, whose instance labels are the digits 0 to 9.

    Raises:
        ValueError: if an argument is not one of the above, or a file of the full pool is damaged.
        OSError: if the full pool is neither there nor to be downloaded.
    """
    for name, value, known in (("assumption", assumption, tuple(KEY_DIGITS)), ("split", split, SPLITS)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    if n_bags < 1 or mean_size < 1 or std_size < 0:
        raise ValueError(
            f"n_bags, mean_size, std_size: expected at least 1, 1 and 0, got {n_bags}, {mean_size}, {std_size}"
        )
    images, digits = _digits(pool, split)
    # RandomState, because NumPy never changes its stream, while that of default_rng may change between versions.
    rng = np.random.RandomState([seed, SPLITS.index(split)])
    smallest = 1 if assumption == "standard" else 2
    sizes = np.maximum(np.rint(rng.normal(mean_size, std_size, n_bags)), smallest).astype(np.int64)
    wanted = rng.permutation(n_bags) % 2 if balanced else [None] * n_bags
    by_digit = np.argsort(digits, kind="stable")  # indices of all 0s, then of all 1s, …
    count = np.bincount(digits, minlength=10)
    drawn = np.concatenate(
        [_draw_digits(rng, assumption, n, y, count / count.sum()) for n, y in zip(sizes, wanted, strict=True)]
    )
    nth = (rng.random_sample(len(drawn)) * count[drawn]).astype(np.int64)  # which image of its digit
    flat = by_digit[(count.cumsum() - count)[drawn] + nth]
    offsets = np.concatenate([[0], sizes.cumsum()])
    nines, sevens = (np.add.reduceat((drawn == digit).astype(np.int64), offsets[:-1]) for digit in (9, 7))
    pixels = torch.from_numpy(images[flat]).float().div_(255).sub_(0.1307).div_(0.3081)  # (N, 28, 28)
    return Bags(
        pixels[:, None],
        torch.from_numpy(offsets),
        torch.from_numpy(_is_positive(assumption, nines, sevens)).long(),
        instance_labels=torch.from_numpy(drawn),
    )


def _is_positive(assumption: str, nines: np.ndarray, sevens: np.ndarray) -> np.ndarray:
    """The rule that labels a bag, from how many 9s and 7s it has."""
    if assumption == "standard":
        return nines >= 1
    if assumption == "presence":
        return (nines >= 1) & (sevens >= 1)
    return nines >= 2


def _draw_digits(
    rng: np.random.RandomState, assumption: str, n: int, wanted: int | None, share: np.ndarray
) -> np.ndarray:
    """n digits whose bag has the label `wanted`, or any label if that is None."""
    distribution = _count_distribution if n <= CACHED else _count_distribution.__wrapped__
    nines, sevens, p = distribution(assumption, int(n), wanted, share[9], share[7])
    case = rng.choice(len(p), p=p)
    other = np.delete(np.arange(10), [7, 9])
    rest = rng.choice(other, n - nines[case] - sevens[case], p=share[other] / share[other].sum())
    return rng.permutation(np.concatenate([[9] * nines[case], [7] * sevens[case], rest]).astype(np.int64))


@lru_cache(maxsize=64)
def _count_distribution(
    assumption: str, n: int, wanted: int | None, p9: float, p7: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many 9s and how many 7s a bag of n digits has, and with what probability, given its label.

    The counts are multinomial; those that contradict the label are struck out and the rest scaled to sum one. Drawing
    bags until one has the label would give the same bags, but hardly ever end for a negative bag of 100 digits. Of a
    large bag, only counts within ten standard deviations of their mean are listed: linear in n, not in its square.
    """
    nines, sevens = (counts.ravel() for counts in np.meshgrid(_likely(n, p9, p7), _likely(n, p7, p9)))
    possible = nines + sevens <= n
    if wanted is not None:
        possible &= _is_positive(assumption, nines, sevens) == bool(wanted)
    nines, sevens = nines[possible], sevens[possible]
    others = n - nines - sevens
    log_p = -gammaln(nines + 1) - gammaln(sevens + 1) - gammaln(others + 1)
    log_p = log_p + nines * np.log(p9) + sevens * np.log(p7) + others * np.log(1 - p9 - p7)
    p = np.exp(log_p - log_p.max())
    return nines, sevens, p / p.sum()


def _likely(n: int, p: float, q: float) -> np.ndarray:
    """How often a digit of probability p can be among n in earnest; 0 and 1, which labels speak of, are always there.

    Its mean is n p, or n p / (1 - q) where the other digit, of probability q, is known to be absent.
    """
    reach = max(WHOLE, 10 * (n * p) ** 0.5)
    low, high = max(2, int(n * p - reach)), min(n, int(n * p / (1 - q) + reach))
    return np.concatenate([np.arange(min(n, 1) + 1), np.arange(low, high + 1)]).astype(np.int32)


def _digits(pool: str, split: str) -> Pool:
    """Images and digits that a split draws from."""
    pools = {"subset": subset_pool, "full": full_pool}
    if pool not in pools:
        raise ValueError(f"pool: expected one of {', '.join(pools)}, got {pool!r}")
    train_images, train_digits, test_images, test_digits = pools[pool]()
    if split == "test":
        return test_images, test_digits
    chosen = (np.arange(len(train_digits)) % 5 == 4) == (split == "validation")
    return train_images[chosen], train_digits[chosen]


@cache
def subset_pool() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The digits inside the package: training images and digits, test images and digits."""
    names = ("train_images", "train_labels", "test_images", "test_labels")
    train_images, train_digits, test_images, test_digits = read_npz(SUBSET, names)
    return train_images, train_digits, test_images, test_digits


@cache
def full_pool() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All of MNIST: training images and digits, test images and digits."""
    parts = []
    for name, sha256 in FILES.items():
        images, path = "images" in name, fetch("mnist", name, sha256, MIRRORS, most=MOST_PACKED)
        with naming(path, " is broken"):
            # The header, then one byte a pixel or digit.
            flat = np.frombuffer(read_gzip(path), np.uint8, offset=16 if images else 8)
            parts.append(flat.reshape(-1, 28, 28) if images else flat)
    return parts[0], parts[1], parts[2], parts[3]
