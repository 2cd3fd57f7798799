"""The experiments of jmtl: problems, the command line, the demo. Run `python -m experiments`."""
