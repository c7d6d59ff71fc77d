"""Where the numbers of every epoch go: a CSV file, TensorBoard, the console."""
