"""What the tools do once their arguments are read: a file for each file of ``tools/``."""
