"""Packages that only an extra of samil-lite brings."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def from_extra(extra: str, need: str, otherwise: str = "") -> Iterator[None]:
    """Around an import: where it fails, the error says what needs the package and how to install it.

    Args:
        extra: that brings the package.
        need: the beginning of the message, such as "slide_1.h5 needs h5py".
        otherwise: its end: what to do without the package.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{need}: pip install 'samil-lite[{extra}]'{otherwise}") from error
