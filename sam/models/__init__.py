"""Networks. Each maps images, float [N, C, H, W], to logits [N, num_classes]."""
