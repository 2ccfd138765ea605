"""What runs any flow: processes, recovery, checkpoints, rescaling, statistics, compiling."""
