"""Whether everything is right on this GPU, and how fast it is: the parts of tools/gpu_check.py."""
