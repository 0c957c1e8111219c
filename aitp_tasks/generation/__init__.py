"""Durable generation: what the three prompt stages share."""
