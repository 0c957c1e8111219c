"""The door to corpus and SFT files: which there are, and their rows as texts or examples."""
