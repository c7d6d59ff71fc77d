"""A run of a few updates on a few small images, as overrides of train.py."""

TINY = [
    "dataset=synthetic",
    "dataset.num_train=32",
    "dataset.num_test=16",
    "dataset.image_size=12",
    "dataset.num_classes=4",
    "model.width=4",
    "batch_size=16",
    "epochs=1",
    "runtime.threads=1",
]
