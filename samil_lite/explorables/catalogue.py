"""All figures by name: what makes their data, and their titles and pictures in words."""

from collections.abc import Callable
from typing import Any, NamedTuple

from samil_lite.explorables import figures


class Figure(NamedTuple):
    """A figure: the function that checks and completes its data, its title, and its picture in words."""

    data: Callable[..., dict[str, Any]]
    title: str
    alt: str


FIGURES = {
    "kernels": Figure(
        figures.kernels,
        "Who does the chosen instance look at?",
        "Six numbered points in a plane, one of them the query, and five rows of bars: how the dot product, RBF, "
        "inverse quadratic, Laplace and module kernels divide its attention. A dashed line bounds the bars of RBF and "
        "inverse quadratic.",
    ),
    "digits": Figure(
        figures.digits,
        "Fill a bag with digits and let two models judge it",
        "A bag of five handwritten digits. Under each stand its attention weight, the verdict on it and their product, "
        "for an AbMILP and for an SA-AbMILP; above, the logit and the probability that each model gives the bag.",
    ),
    "quadruple": Figure(
        figures.quadruple,
        "The impossible game: four bags, all right",
        "Four bags made of two 9s and two 7s, each with its logit on a line whose right half is shaded if the bag "
        "should be positive and whose left half if not; beside them sliders for the weight and the verdict of each "
        "instance. Two of four are right.",
    ),
    "running_softmax": Figure(
        figures.running_softmax,
        "A softmax that never sees its whole row",
        "Sixteen scores in four blocks; bars show exp(s − m) for the blocks seen. A table keeps m, the factor, the sum "
        "and the mix after each block. Below, a square of tiles and the memory that a loop, all differences, the "
        "whole β and tiles need.",
    ),
    "gamma": Figure(
        figures.gamma,
        "γ from 0 to 1",
        "Two planes, one for a bag of two 9s and one for a bag of a 9 and a 7, with a dashed line beyond which a "
        "verdict is positive. At γ = 0 no instance of either bag is beyond it.",
    ),
    "two_paths": Figure(
        figures.two_paths,
        "Two paths into the bag vector",
        "A bag of a 9, a 7 and four others: the 9 has nearly all of the direct weight, the 7 nearly all of the "
        "indirect weight, and the logit is positive.",
    ),
    "three_rules": Figure(
        figures.three_rules,
        "One bag, three rules",
        "A bag of the digits 3, 9, 1 and 4 and three lamps: standard is lit, for there is a 9; presence, a 9 and a 7, "
        "and threshold, two 9s, are not.",
    ),
    "nuclei": Figure(
        figures.nuclei,
        "What one nucleus looks at",
        "Nuclei of one tissue image, circles for epithelial ones and squares for others, one of them chosen. The "
        "larger a mark, the more of the chosen nucleus' attention it gets; marks above the even weight are filled.",
    ),
    "records": Figure(
        figures.records,
        "Two models, pair by pair",
        "Differences in test AUC between two models on the same bags, one dot for each seed, and below them the mean "
        "with its 95 % interval beside a dotted line at zero.",
    ),
    "pooling": Figure(
        figures.pooling,
        "What mean and maximum make of a bag",
        "Five numbered points in a plane, a cross at their mean, and a diamond at the largest value of each "
        "coordinate, where no point is; dashed lines lead from it to the two points it takes its coordinates from.",
    ),
    "far_partner": Figure(
        figures.far_partner,
        "A partner far away",
        "The weight of one partner among many others as four bars: RBF, inverse quadratic and the logarithm of both. "
        "The first two stay at the even weight, a dotted line; the others do not.",
    ),
    "threshold": Figure(
        figures.threshold,
        "Where to cut",
        "Six positive bags as diamonds and ten negative ones as circles on a line of scores, cut by a threshold; below "
        "it the counts of right and wrong calls, precision, recall and accuracy.",
    ),
    "folds": Figure(
        figures.folds,
        "Who has a sister in training?",
        "Ten preparations of three images each, every image with the number of its fold; the tested fold is filled, "
        "and preparations that are in test and training have a dashed frame.",
    ),
    "lesion": Figure(
        figures.lesion,
        "What is left of a lesion",
        "A round photograph under a grid of patches, the patch with a small lesion shaded; beside it the number of "
        "patches, the width of the lesion after shrinking, and its share of the patch.",
    ),
    "stepper": Figure(figures.stepper, "Stages", "The first of several stages."),
}
