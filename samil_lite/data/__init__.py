"""Data sets as `Bags`."""

from samil_lite.data.defungi import defungi_bags, defungi_table
from samil_lite.data.features import FeatureBags, feature_bags
from samil_lite.data.fungi import SPECIES, difas_bags, difas_preparations
from samil_lite.data.histology import NUCLEI, breast_bags, breast_slides, colon_bags, colon_names
from samil_lite.data.idrid import idrid_bags, idrid_table
from samil_lite.data.mnist import KEY_DIGITS, mnist_bags
from samil_lite.data.musk import musk_bags
from samil_lite.data.retina import messidor_bags

__all__ = [
    "KEY_DIGITS",
    "NUCLEI",
    "SPECIES",
    "FeatureBags",
    "breast_bags",
    "breast_slides",
    "colon_bags",
    "colon_names",
    "defungi_bags",
    "defungi_table",
    "difas_bags",
    "difas_preparations",
    "feature_bags",
    "idrid_bags",
    "idrid_table",
    "messidor_bags",
    "mnist_bags",
    "musk_bags",
]
