"""Networks; every one maps float [N, C, H, W] to logits [N, num_classes]."""
