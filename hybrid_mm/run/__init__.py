"""From a command line to a runner: options, configs, checks, process groups, resuming."""
