"""The dataset that ships with the package: 5,000 training and 5,000 test images of Fashion-MNIST.

Fashion-MNIST: Xiao, Rasul and Vollgraf 2017, Zalando SE, MIT licence (LICENSE in this folder). The images are
greyscale, 28 x 28 pixels, with equal shares of ten classes. scripts/make_fashion_mnist_mini.py made the
dataset from the full one. It has a twelfth of the full training images, so errors on the two do not compare.
"""

import pathlib

PATH = pathlib.Path(__file__).resolve().parent / "fashion_mnist_mini.npz"
