"""The toy problem's command: where methods go from five starts, in a report of its own."""
