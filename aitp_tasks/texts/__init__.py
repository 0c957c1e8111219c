"""What a text is made of, whatever it is for: its words in any script, and its language."""
