"""Images in memory: readers, label noise, augmentation, batches."""
