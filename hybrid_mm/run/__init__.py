"""What lies between a command line and a runner."""
