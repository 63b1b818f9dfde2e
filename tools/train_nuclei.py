"""Trains the SA-AbMILP of the explorable "nuclei" and stores one image of it: python -m tools.train_nuclei

The setting is that of the records of chapter 14 (colon, fold 0 of repeat 0, γ from 1), with the dot product. Stored
are, for one positive test image, the places of its nuclei rounded to 5 pixels as in the records, which of them are
epithelial, the attention, and queries and keys in 8 bits, from which a page makes every row of β. Needs the colon
data in SAMIL_DATA; takes some minutes on a CPU.
"""

import base64
import json

import torch
from torch import nn

from samil_lite.augment import Dihedral, StainJitter
from samil_lite.encoders import PatchCNN
from samil_lite.experiments import crossval, nuclei
from samil_lite.explorables.digits import round_to_8_bits
from samil_lite.explorables.figures import NUCLEI
from samil_lite.folds import parts
from samil_lite.models import build
from samil_lite.training import fit


def main() -> None:
    config = crossval.cells(["colon"], ["sa-abmilp"], [0], [1.0], [0])[0]
    bags, _ = crossval.load("colon", config["lab"], config["shrink"])
    test, validation = parts(crossval.stored_folds(config, bags, None), 0, config["n_folds"], 2)
    torch.manual_seed(0)
    augment = nn.Sequential(StainJitter(config["stain"]), Dihedral())
    model = build("sa-abmilp", PatchCNN(27, augment=augment), gamma=1.0)
    chooser = crossval.Subsampled(bags[validation], 128)[torch.arange(int(validation.sum()))]
    train = crossval.Subsampled(bags[~(test | validation)], config["at_most"])
    fit(model, train, chooser, seed=0, **{name: config[name] for name in crossval.TRAINING})
    tested = bags[test]
    assert tested.labels is not None
    bag = tested[tested.labels == 1][0]
    image = nuclei.example(model, bag)
    layer = model.self_attention
    assert layer is not None
    with torch.no_grad():
        h = model.encoder(bag.instances)
        vectors = {"q": layer.W_q(h), "k": layer.W_k(h)}  # (n, d_qk) each
    record = {"config": config, **{key: image[key] for key in ("places", "epithelial", "attention", "query")}}
    for name, x in vectors.items():
        whole, scale = round_to_8_bits(x.reshape(-1))  # one scale for all
        record[name] = base64.b64encode(whole.tobytes()).decode()
        record[f"{name}_scale"] = float(scale[0])
    NUCLEI.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(f"{bag.n_instances} nuclei, {NUCLEI.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
