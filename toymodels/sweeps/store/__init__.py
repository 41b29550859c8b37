"""A file that holds the finished cells of sweeps and survives a crash."""
