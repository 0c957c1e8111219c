"""Whether what a model will learn from gives away what it will be evaluated on.

``index`` finds evaluation items by runs of words, ``meanings`` by vectors; ``report`` tells
what was found; ``guard`` puts them together for a run.
"""
