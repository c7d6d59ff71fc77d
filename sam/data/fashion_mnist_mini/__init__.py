"""The dataset that ships with the package: 5,000 training and 5,000 test images of Fashion-MNIST.

Fashion-MNIST: Xiao, Rasul and Vollgraf 2017, Zalando SE, MIT licence (LICENSE beside this file). Greyscale,
28 x 28, ten classes in equal shares, made by scripts/make_fashion_mnist_mini.py from the full set. A class
has a twelfth of the full training images, so errors here are not those of Fashion-MNIST.
"""

import pathlib

PATH = pathlib.Path(__file__).resolve().parent / "fashion_mnist_mini.npz"
