"""One page about a run: facts.py gathers, pictures.py draws, page.py writes."""
