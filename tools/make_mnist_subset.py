"""Writes samil_lite/data/mnist_subset.npz from the four original MNIST files.

Run once, by hand:  SAMIL_DATA=folder python tools/make_mnist_subset.py
Every sixth training digit and two in five test digits are taken, evenly over each file: the second
half of the test file was written by other people and is harder, so its head alone would not do.
"""

import numpy as np

from samil_lite.data.mnist import SUBSET, full_pool

train_images, train_labels, test_images, test_labels = full_pool()
keep_train = np.arange(len(train_labels)) % 6 == 0  # 10,000 of 60,000
keep_test = np.arange(len(test_labels)) % 5 < 2  # 4,000 of 10,000
np.savez_compressed(
    SUBSET,
    train_images=train_images[keep_train],
    train_labels=train_labels[keep_train],
    test_images=test_images[keep_test],
    test_labels=test_labels[keep_test],
)
print(f"{SUBSET}: {keep_train.sum()} training and {keep_test.sum()} test digits, {SUBSET.stat().st_size / 1e6:.2f} MB")
