"""What configs, networks and signatures are, as readable files that a test compares."""
