"""What a training step asks of a GPU, counted on fake CUDA tensors on any machine."""
