"""Where the work runs: devices, models and servers."""
