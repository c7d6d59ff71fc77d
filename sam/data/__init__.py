"""Datasets, label noise, augmentation and batches."""
