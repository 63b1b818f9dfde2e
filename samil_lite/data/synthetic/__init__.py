"""Small generated stand-ins in the layouts of the official data sets, so that every loader runs everywhere."""

from samil_lite.data.synthetic.features import write_features, write_musk
from samil_lite.data.synthetic.fungi import write_difas
from samil_lite.data.synthetic.histology import write_breast, write_colon
from samil_lite.data.synthetic.retina import write_messidor
from samil_lite.data.synthetic.slides import write_slide, write_trident

__all__ = [
    "write_breast",
    "write_colon",
    "write_difas",
    "write_features",
    "write_messidor",
    "write_musk",
    "write_slide",
    "write_trident",
]
