"""The logs of each epoch's metrics: a CSV file, TensorBoard, the console."""
