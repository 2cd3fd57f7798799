"""Pages that report what was found: one HTML file that needs nothing else, figures, and files.

The report of a study and that of the toy problem are made of the same pieces.
"""
